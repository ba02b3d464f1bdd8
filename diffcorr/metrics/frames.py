"""Which pixels of an image a mask protocol compares: all, or those that a program's crop and resize keep."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from diffcorr.data.labels import LabelMap, centre_square

Frame = Callable[[int, int], tuple[LabelMap, LabelMap]]
"""Height and width of an image -> rows and columns of the pixels that are compared."""


def _whole(height: int, width: int) -> tuple[LabelMap, LabelMap]:
    return np.arange(height), np.arange(width)


def _square(side: int) -> Frame:
    return lambda height, width: centre_square(height, width, side)


def _diffcut_128(height: int, width: int) -> tuple[LabelMap, LabelMap]:
    # the program crops to a pixel less than the short side, goes to 1024 by pixel centres, and then takes
    # the first of every eight rows and columns
    short = max(1, min(height, width) - 1)
    steps = (16 * np.arange(128) + 1) * short // 2048
    top, left = (round((length - short) / 2) for length in (height, width))
    return top + steps, left + steps


FRAMES: dict[str, Frame] = {
    "whole": _whole,
    "square_512": _square(512),
    "square_320": _square(320),
    "diffcut_128": _diffcut_128,
}
"""``whole``: every pixel once. ``square_512``, ``square_320``: the largest centred square, brought to that
side by nearest neighbour, which leaves what has that size already as it is. ``diffcut_128``: the 128 x 128
pixels that the DiffCut program looks at."""


def see(map_HW: Tensor, frame: str) -> Tensor:
    """The pixels of a mask or label (H, W) that a frame compares, as they lie in the frame."""
    if frame == "whole":
        return map_HW
    rows, columns = (torch.from_numpy(places).to(map_HW.device) for places in FRAMES[frame](*map_HW.shape))
    return map_HW[rows[:, None], columns]
