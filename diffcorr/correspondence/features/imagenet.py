"""How models that were trained on photographs want their pixels."""

from __future__ import annotations

from torch import Tensor

from diffcorr.data.geometry import frame, image_size, image_to_tensor
from diffcorr.types import UInt8Image

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
"""Of ImageNet's red, green and blue in [0, 1]."""


def imagenet_pixels(image: UInt8Image, side: int) -> Tensor:
    """The image stretched to (3, side, side); of each channel the mean is taken off, then it is scaled."""
    pixels = (image_to_tensor(image, frame(image_size(image), side)) + 1) / 2
    return (pixels - pixels.new_tensor(MEAN)[:, None, None]) / pixels.new_tensor(STD)[:, None, None]
