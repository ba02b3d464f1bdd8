"""Resizes, crops and letterboxes that carry points both ways.

Every one is an axis-aligned map from an image to a rectangle of an output image. Points are
(x, y) in pixels, pixel centres at +0.5, so that an image of width W covers x in [0, W].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from diffcorr.errors import ImageError
from diffcorr.types import Point, Size, UInt8Image


@dataclass(frozen=True)
class Geometry:
    """The box ``source`` of the input becomes the box ``destination`` of an output of ``size``.

    Args:
        source: box of the input image that is shown, in whole pixels.
        destination: where it is shown in the output, in whole pixels.
        size: (width, height) of the output.
        fill: value of output pixels outside of ``destination``.
    """

    source: tuple[int, int, int, int]
    destination: tuple[int, int, int, int]
    size: Size
    fill: float = 0.0

    def __post_init__(self) -> None:
        for name, (left, top, right, bottom) in (("source", self.source), ("destination", self.destination)):
            if right <= left or bottom <= top:
                raise ImageError(f"expected a {name} box of at least one pixel, found {getattr(self, name)}")

    @property
    def scale(self) -> tuple[float, float]:
        """Output pixels per input pixel along x and y."""
        (a, b, c, d), (e, f, g, h) = self.source, self.destination
        return (g - e) / (c - a), (h - f) / (d - b)

    def forward(self, points: Tensor) -> Tensor:
        """Points (..., 2) of the input in pixels of the output."""
        scale, origin, corner = self._constants(points)
        return (points - origin) * scale + corner

    def inverse(self, points: Tensor) -> Tensor:
        """Points (..., 2) of the output in pixels of the input."""
        scale, origin, corner = self._constants(points)
        return (points - corner) / scale + origin

    def apply(self, image: Tensor, antialias: bool = False) -> Tensor:
        """The output (..., channels, H, W) of a float image (..., channels, H, W), bilinear.

        ``antialias`` low-passes when the image shrinks; the authors' crops do without.
        """
        left, top, right, bottom = self.source
        height, width = image.shape[-2:]
        if left < 0 or top < 0 or right > width or bottom > height:
            raise ImageError(f"expected a box inside an image of {width}x{height}, found {self.source}")
        batch = image[..., top:bottom, left:right].reshape(
            -1, *image.shape[-3:-2], bottom - top, right - left
        )
        x0, y0, x1, y1 = self.destination
        if batch.shape[-2:] != (y1 - y0, x1 - x0):
            # a CPU low-passes no half precision
            precise = batch.float() if antialias and batch.dtype in (torch.bfloat16, torch.float16) else batch
            batch = F.interpolate(precise, size=(y1 - y0, x1 - x0), mode="bilinear", antialias=antialias).to(
                batch
            )
        out_width, out_height = self.size
        batch = F.pad(batch, (x0, out_width - x1, y0, out_height - y1), value=self.fill)
        return batch.reshape(*image.shape[:-2], out_height, out_width)

    def _constants(self, points: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return (
            points.new_tensor(self.scale),
            points.new_tensor(self.source[:2]),
            points.new_tensor(self.destination[:2]),
        )


class Resize(Geometry):
    """The whole image of ``in_size`` stretched to ``out_size``, both (width, height)."""

    def __init__(self, in_size: Size, out_size: Size) -> None:
        super().__init__((0, 0, *in_size), (0, 0, *out_size), out_size)


class CropResize(Geometry):
    """The box with left top ``x0, y0`` and size ``width, height`` stretched to ``out_size``."""

    def __init__(self, x0: int, y0: int, width: int, height: int, out_size: Size) -> None:
        super().__init__((x0, y0, x0 + width, y0 + height), (0, 0, *out_size), out_size)


class Letterbox(Geometry):
    """The whole image of ``in_size``, its aspect kept, centred in ``out_size`` and padded with ``fill``."""

    def __init__(self, in_size: Size, out_size: Size, fill: float = 0.0) -> None:
        scale = min(out_size[0] / in_size[0], out_size[1] / in_size[1])
        width, height = (min(o, max(1, round(i * scale))) for i, o in zip(in_size, out_size, strict=True))
        x0, y0 = (out_size[0] - width) // 2, (out_size[1] - height) // 2
        super().__init__((0, 0, *in_size), (x0, y0, x0 + width, y0 + height), out_size, fill)


def frame(in_size: Size, side: int, fit: str = "stretch") -> Geometry:
    """How an image is brought to a model's square input: ``stretch`` or ``letterbox``."""
    if fit == "stretch":
        return Resize(in_size, (side, side))
    if fit == "letterbox":
        return Letterbox(in_size, (side, side))
    raise ImageError(f"expected fit 'stretch' or 'letterbox', found {fit!r}")


def image_size(image: UInt8Image) -> Size:
    """(width, height) of an RGB image; ImageError if it is none."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        shape, dtype = getattr(image, "shape", None), getattr(image, "dtype", type(image).__name__)
        raise ImageError(f"expected an RGB image as uint8 (H, W, 3), found {dtype} {shape}: convert it first")
    return image.shape[1], image.shape[0]


def image_to_tensor(image: UInt8Image, geometry: Geometry, antialias: bool = True) -> Tensor:
    """The image seen through ``geometry``, float (3, H, W) in [-1, 1]."""
    image_size(image)
    pixels = torch.tensor(image).permute(2, 0, 1).float() / 127.5 - 1
    return geometry.apply(pixels, antialias).clamp_(-1, 1)


def check_inside(point: Point, size: Size, name: str) -> None:
    """ImageError unless ``point`` lies in an image of ``size`` (width, height)."""
    x, y = point
    if not (0 <= x <= size[0] and 0 <= y <= size[1]):
        raise ImageError(
            f"expected {name} inside its image of {size[0]}x{size[1]}, found ({x:g}, {y:g}): "
            "points are (x, y) in pixels of the original image"
        )
