"""How an image of any size and aspect is shown to a model, and where it lies in the model's maps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch

from diffcorr.data.geometry import CropResize, Geometry, Letterbox, Resize
from diffcorr.errors import UnknownNameError
from diffcorr.types import Box, Size

Fit = Literal["stretch", "crop", "letterbox", "native"]
FITS: tuple[Fit, ...] = ("stretch", "crop", "letterbox", "native")

Grid = tuple[int, int]
"""(h, w): rows and columns of a map's cells."""


@dataclass(frozen=True)
class Frame:
    """One image as a model is shown it.

    Attributes:
        image_size: (width, height) of the image.
        geometry: from pixels of the image to pixels of the model's input.
    """

    image_size: Size
    geometry: Geometry

    def window(self, grid: Grid) -> tuple[slice, slice]:
        """Rows and columns of the cells that show the image: those whose centre does.

        Args:
            grid: cells of a map that covers the whole input.
        """
        (height, width), (input_width, input_height) = grid, self.geometry.size
        left, top, right, bottom = self.geometry.destination
        return (
            _cells_between(top / input_height, bottom / input_height, height),
            _cells_between(left / input_width, right / input_width, width),
        )

    def box(self, grid: Grid) -> Box:
        """Where the whole image lies in the window, in cells: (left, top, right, bottom).

        The box of an image that the window shows exactly is (0, 0, w, h). It reaches beyond the window where
        the model sees only a part of the image.
        """
        rows, columns = self.window(grid)
        corners = torch.tensor([(0, 0), self.image_size], dtype=torch.float64)
        cells_per_pixel = torch.tensor(grid[::-1]) / torch.tensor(self.geometry.size, dtype=torch.float64)
        cells = self.geometry.forward(corners) * cells_per_pixel
        left, top, right, bottom = (cells - cells.new_tensor((columns.start, rows.start))).flatten().tolist()
        return left, top, right, bottom


def frame_image(size: Size, side: int, fit: Fit, multiple: int = 1) -> Frame:
    """How to show an image to a model.

    Args:
        size: (width, height) of the image.
        side: of the model's square input, in pixels.
        fit: ``stretch`` the image to the square, ``crop`` its central square, ``letterbox`` it whole into the
            square, or, ``native``, keep its aspect in an input of about side x side pixels in number.
        multiple: of which the sides of a ``native`` input are, in pixels: what one cell of the coarsest map
            covers. The aspect is kept as closely as that allows.

    Raises:
        UnknownNameError: unknown fit.
    """
    width, height = size
    if fit == "stretch":
        return Frame(size, Resize(size, (side, side)))
    if fit == "crop":
        short = min(size)
        return Frame(
            size, CropResize((width - short) // 2, (height - short) // 2, short, short, (side, side))
        )
    if fit == "letterbox":
        return Frame(size, Letterbox(size, (side, side)))
    if fit == "native":
        scale = side / math.sqrt(width * height) / multiple
        native = max(1, round(width * scale)) * multiple, max(1, round(height * scale)) * multiple
        return Frame(size, Resize(size, native))
    raise UnknownNameError("fit", fit, FITS)


def _cells_between(low: float, high: float, num_cells: int) -> slice:
    """Cells whose centre lies in low..high of the whole 0..1; at least the one in the middle of it."""
    start, stop = (math.ceil(share * num_cells - 0.5) for share in (low, high))
    if stop > start:
        return slice(start, stop)
    middle = min(int((low + high) / 2 * num_cells), num_cells - 1)
    return slice(middle, middle + 1)
