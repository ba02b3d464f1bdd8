"""Pictures that visitors bring: what is accepted, how large it is kept, and how points are drawn on it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, UnidentifiedImageError

from diffcorr.data.geometry import image_size
from diffcorr.data.images import to_rgb
from diffcorr.errors import ImageError
from diffcorr.types import Point, Size, UInt8Image

MAX_BYTES = 20 * 2**20
MAX_PIXELS = 50_000_000
KEPT_SIDE = 2048
"""Larger pictures are kept and matched at this side, and points still told in their own pixels."""
SHOWN_SIDE = 640
DISC = 15.0
"""Radius of a number's disc, in pixels of the shown picture."""
INK, PAPER, ANSWER = "#20242c", "#ffffff", "#0072b2"


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture of a visitor.

    Attributes:
        pixels: (H, W, 3) uint8, upright, at most `KEPT_SIDE` along the longer side.
        size: (width, height) as it was given, upright; points are told in these pixels.
        note: what was done to it, in words.
    """

    pixels: UInt8Image = field(repr=False)
    size: Size
    note: str

    def to_kept(self, points: Sequence[Point]) -> list[Point]:
        """Points of the picture as given, in pixels of what is kept."""
        (width, height), (w, h) = self.size, image_size(self.pixels)
        return [(x * w / width, y * h / height) for x, y in points]

    def to_given(self, points: Sequence[Point]) -> list[Point]:
        """The way back."""
        (width, height), (w, h) = self.size, image_size(self.pixels)
        return [(x * width / w, y * height / h) for x, y in points]


def read_upload(path: str | Path) -> Picture:
    """A file that a visitor sent.

    Raises:
        ImageError: too many bytes or pixels, or no picture.
    """
    file = Path(path)
    if (num_bytes := file.stat().st_size) > MAX_BYTES:
        raise ImageError(
            f"expected a file of at most {MAX_BYTES / 2**20:.0f} MB, found {num_bytes / 2**20:.0f} MB: "
            "save it smaller"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # ours is stricter
            with Image.open(file) as picture:
                if picture.width * picture.height > MAX_PIXELS:
                    raise ImageError(
                        f"expected at most {MAX_PIXELS // 10**6} megapixels, found {picture.width} x "
                        f"{picture.height}: make it smaller"
                    )
                frames = getattr(picture, "n_frames", 1)
                stored = picture.size
                pixels = to_rgb(picture, file.name)
    except ImageError:
        raise
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        raise ImageError(
            f"expected a picture (PNG, JPEG, WebP, GIF, TIFF), found none in {file.name}: choose another file"
        ) from None
    notes = [f"the first of {frames} frames"] if frames > 1 else []
    return picture_of(pixels, notes + (["turned upright"] if stored != image_size(pixels) else []))


def picture_of(pixels: UInt8Image, notes: Sequence[str] = ()) -> Picture:
    """An RGB image as a visitor's picture, made smaller where it is large."""
    size = image_size(pixels)
    said = [f"{size[0]} x {size[1]} pixels", *notes]
    if max(size) > KEPT_SIDE:
        kept = _scaled(size, KEPT_SIDE)
        pixels = np.array(Image.fromarray(pixels).resize(kept, Image.Resampling.LANCZOS))
        said.append(f"worked on at {kept[0]} x {kept[1]}")
    return Picture(pixels, size, ", ".join(said))


def shown_size(picture: Picture) -> Size:
    """(width, height) at which a picture is shown."""
    return _scaled(image_size(picture.pixels), SHOWN_SIDE)


def clicked(picture: Picture, x: float, y: float) -> Point:
    """A click on the shown picture, in pixels of the picture as given."""
    (width, height), (w, h) = picture.size, shown_size(picture)
    return min((x + 0.5) * width / w, width), min((y + 0.5) * height / h, height)


def draw_points(
    picture: Picture, points: Sequence[Point], answers: bool = False, base: UInt8Image | None = None
) -> UInt8Image:
    """The picture as it is shown, with numbered points in pixels of the picture as given.

    A dot is the point itself, the disc with its number stands beside it where there is room: white for
    queries, blue for answers.
    ``base`` is drawn on instead of the picture, such as its heatmap at the shown size.
    """
    (width, height), size = picture.size, shown_size(picture)
    shown = Image.fromarray(picture.pixels).resize(size, Image.Resampling.BILINEAR)
    image = shown if base is None else Image.fromarray(base)
    pen, font = ImageDraw.Draw(image), ImageFont.load_default(18)
    fill, ink = (ANSWER, PAPER) if answers else (PAPER, INK)
    dots = [(x * size[0] / width, y * size[1] / height) for x, y in points]
    discs: list[Point] = []
    for dot in dots:
        discs.append(_free_place(dot, [*discs, *dots], size))
    for dot, disc in zip(dots, discs, strict=True):
        pen.line([dot, disc], fill=ink, width=5)
        pen.line([dot, disc], fill=fill, width=3)
    for number, (dot, disc) in enumerate(zip(dots, discs, strict=True), start=1):
        pen.circle(dot, 6, fill=fill, outline=ink, width=2)
        pen.circle(disc, DISC, fill=fill, outline=ink, width=2)
        pen.text(disc, str(number), fill=ink, font=font, anchor="mm")
    return np.array(image)


def _free_place(dot: Point, taken: Sequence[Point], size: Size) -> Point:
    """Where a disc beside a dot covers least of the discs and dots that are there."""

    def room(at: Point) -> float:
        inside = min(at[0], at[1], size[0] - at[0], size[1] - at[1])
        return min([inside + DISC, *(math.dist(at, other) for other in taken if other != dot)])

    turns = [math.radians(degrees) for degrees in range(-45, 315, 45)]
    far = [DISC + 12, DISC + 34]
    places = [(dot[0] + r * math.cos(a), dot[1] + r * math.sin(a)) for r in far for a in turns]
    return max(places, key=lambda at: min(room(at), 2.2 * DISC))


def draw_ring(image: UInt8Image, at: Point) -> UInt8Image:
    """A ring around a pixel of an image that is shown, dark and light."""
    picture = Image.fromarray(image)
    pen = ImageDraw.Draw(picture)
    pen.circle(at, 11, outline=INK, width=4)
    pen.circle(at, 10, outline=PAPER, width=2)
    return np.array(picture)


def _scaled(size: Size, side: int) -> Size:
    scale = side / max(size)
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
