"""What every segmentation method is: images in, one mask each out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from diffcorr.backbones.base import Backbone
from diffcorr.errors import DiffcorrError
from diffcorr.types import UInt8Image

Mask = npt.NDArray[np.int64]
"""Segment ids >= 0 of an image, shape (H, W), in no particular order; an id may have no pixel."""

CountsFrom = Literal["image", "method", "labels"]
"""Whence a method's number of segments: it finds it in the image, or is given the number that another method
found, or the number of classes in the image's labels."""


@runtime_checkable
class SegmentationMethod(Protocol):
    """Cuts images into segments without knowing any class. One file and one config each."""

    @property
    def name(self) -> str:
        """What stands beside its scores."""

    @property
    def needs_backbone(self) -> bool:
        """Whether `segment` must be given a backbone."""

    @property
    def counts_from(self) -> CountsFrom:
        """Whence the number of segments; unless it is ``image``, `segment` must be given it."""

    def segment(
        self,
        images: Sequence[UInt8Image],
        *,
        backbone: Backbone | None = None,
        num_segments: Sequence[int] | None = None,
    ) -> list[Mask]:
        """Cut images of any size and aspect into segments.

        Args:
            images: (H, W, 3) uint8 each, sizes may differ; they do not influence one another.
            backbone: frozen model, for methods that need one.
            num_segments: wanted number for each image, for methods that do not find it themselves.

        Returns:
            One mask for each image, at its size.
        """


class MaskPrediction(NamedTuple):
    """The segments of one image (a tuple: Lightning refuses frozen dataclasses as predictions)."""

    image_id: str
    mask: Mask


def count_segments(mask: Mask) -> int:
    """Number of different segments in a mask."""
    return len(np.unique(mask))


def require_num_segments(
    method: str, images: Sequence[UInt8Image], num_segments: Sequence[int] | None
) -> Sequence[int]:
    """The number of segments of each image.

    Raises:
        DiffcorrError: it was not given for every image.
    """
    if num_segments is None or len(num_segments) != len(images):
        found = "none" if num_segments is None else len(num_segments)
        raise DiffcorrError(
            f"{method} expects a number of segments for each of {len(images)} images, found {found}; "
            "pass the number that another method found, or that of the image's classes"
        )
    return num_segments
