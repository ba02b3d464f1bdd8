"""Baseline: the whole image is one segment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from diffcorr.backbones.base import Backbone
from diffcorr.segmentation.base import CountsFrom, Mask
from diffcorr.types import UInt8Image


@dataclass(frozen=True)
class OneSegment:
    """Gives every pixel of an image to the same segment."""

    name: str = "one_segment"
    needs_backbone = False
    counts_from: ClassVar[CountsFrom] = "image"

    def segment(
        self,
        images: Sequence[UInt8Image],
        *,
        backbone: Backbone | None = None,
        num_segments: Sequence[int] | None = None,
    ) -> list[Mask]:
        """Masks of zeros, see `SegmentationMethod.segment`."""
        return [np.zeros(image.shape[:2], dtype=np.int64) for image in images]
