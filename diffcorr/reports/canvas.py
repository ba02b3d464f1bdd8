"""Paper and ink of all figures: panels placed to the pixel, colours that everyone can tell apart.

Figures are made through matplotlib's object interface, never pyplot: no global state, no window, safe
in threads. Positions are pixels from the top left corner at :data:`DPI`, so that an image enlarged by
a whole number stays crisp.
"""

from __future__ import annotations

import io
import math
import os
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import AbstractPathEffect, withStroke
from matplotlib.text import Text

from diffcorr.errors import ImageError
from diffcorr.stores.files import writable_folder, write_atomic
from diffcorr.types import UInt8Image

DPI = 150
INK = "#20242c"
MUTED = "#6a7080"
PAPER = "#ffffff"
RIGHT = "#0072b2"
WRONG = "#d55e00"
ACCENT = "#009e73"
"""Blue, vermillion and green of Okabe and Ito's palette, told apart with any colour vision."""

MARGIN = 24
GAP = 16
LINE = 24
"""Height of one line of small text, in pixels."""

SMALL, MEDIUM, LARGE = 7.5, 9.0, 12.0
"""Font sizes in points."""


class PngFigure(Figure):
    """A figure that a notebook shows by itself, pixel for pixel."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=DPI, facecolor=PAPER)
        return buffer.getvalue()


def new_figure(width: float, height: float) -> Figure:
    """An empty white figure of ``width`` x ``height`` pixels."""
    figure = PngFigure(figsize=(math.ceil(width) / DPI, math.ceil(height) / DPI), dpi=DPI, facecolor=PAPER)
    FigureCanvasAgg(figure)
    return figure


def save_figure(figure: Figure, path: str | os.PathLike[str]) -> Path:
    """Write a figure as PNG, whole or not at all, its folder created where missing.

    Returns:
        The path written.

    Raises:
        StoreError: the file cannot be written.
    """
    target = Path(path)
    writable_folder(target.parent)
    write_atomic(target, lambda to: figure.savefig(to, format="png", dpi=DPI, facecolor=PAPER))
    return target


def as_array(figure: Figure) -> UInt8Image:
    """A figure as an RGB image, (H, W, 3) uint8."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def add_axes(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes at a place given in pixels from the top left corner."""
    full_width, full_height = figure.get_size_inches() * DPI
    return figure.add_axes(
        (
            round(left) / full_width,
            1 - (round(top) + round(height)) / full_height,
            round(width) / full_width,
            round(height) / full_height,
        )
    )


def add_image(
    figure: Figure, image: UInt8Image, left: float, top: float, width: float, height: float
) -> Axes:
    """Show an image; the axes' data coordinates are its pixels, pixel centres at +0.5."""
    axes = add_axes(figure, left, top, width, height)
    image_height, image_width = image.shape[:2]
    crisp = width >= image_width
    axes.imshow(
        image,
        extent=(0, image_width, image_height, 0),
        interpolation="nearest" if crisp else "antialiased",
        aspect="auto",
    )
    axes.set_xlim(0, image_width)
    axes.set_ylim(image_height, 0)
    axes.set_axis_off()
    return axes


def add_text(
    figure: Figure,
    x: float,
    y: float,
    text: str,
    size: float = MEDIUM,
    color: str = INK,
    weight: str = "normal",
    align: str = "left",
) -> Text:
    """Text whose first line's top is at pixel ``y``; ``align`` says what ``x`` is (left, center, right)."""
    width, height = figure.get_size_inches() * DPI
    return figure.text(
        x / width,
        1 - y / height,
        text,
        fontsize=size,
        color=color,
        fontweight=weight,
        ha=align,
        va="top",
        linespacing=1.25,
        parse_math=False,  # captions and names are the user's words: a dollar sign is a dollar sign
    )


def casing(width: float = 2.5, color: str = "white", alpha: float = 0.9) -> list[AbstractPathEffect]:
    """A light border that keeps lines and letters legible on any image."""
    return [withStroke(linewidth=width, foreground=color, alpha=alpha)]


def wrap(text: str, width: float, size: float = SMALL, max_lines: int = 4) -> list[str]:
    """Break text into lines that fit ``width`` pixels; what exceeds ``max_lines`` ends in an ellipsis."""
    # A letter of DejaVu Sans is 0.58 of the font size wide on average; a point is DPI / 72 pixels.
    letters = max(4, int(width / (0.58 * size * DPI / 72)))
    return textwrap.wrap(text, letters, max_lines=max_lines, placeholder=" …") or [""]


def panel_size(image: npt.NDArray[np.uint8], side: int = 384) -> tuple[int, int]:
    """Pixels (width, height) at which an image is shown: a whole multiple if small, else shrunk.

    Args:
        image: (H, W, 3).
        side: about how long the longer side is to be.
    """
    height, width = image.shape[:2]
    longest = max(height, width)
    scale = float(max(1, round(side / longest))) if longest <= 1.4 * side else side / longest
    return max(1, round(width * scale)), max(1, round(height * scale))


def check_image(image: object, name: str = "image") -> UInt8Image:
    """The image itself when it is (H, W, 3) uint8 and not empty.

    Raises:
        ImageError: it is something else.
    """
    array = np.asarray(image)
    if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8 or 0 in array.shape:
        raise ImageError(
            f"expected {name} as (H, W, 3) uint8, found {array.dtype} {array.shape}: convert it to RGB first"
        )
    return array


def check_points(points: object, count: int | None = None, name: str = "points") -> npt.NDArray[np.float64]:
    """Points as (N, 2) float64.

    Raises:
        ImageError: the shape is another, or there are not ``count`` of them.
    """
    array = np.asarray(points, dtype=np.float64)
    if array.size == 0:
        array = array.reshape(0, 2)
    if array.ndim != 2 or array.shape[1] != 2 or (count is not None and len(array) != count):
        expected = "(N, 2)" if count is None else f"({count}, 2)"
        raise ImageError(f"expected {name} as {expected}, found {array.shape}: one (x, y) per keypoint")
    return array


def check_count(found: Sequence[object], count: int, name: str) -> None:
    """Pass when there are ``count`` of them.

    Raises:
        ImageError: there are not.
    """
    if len(found) != count:
        raise ImageError(f"expected {count} {name}, found {len(found)}: give one for each")
