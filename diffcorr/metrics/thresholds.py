"""What a protocol measures with: coordinate spaces, and the lengths that alpha multiplies.

A space says how large a pixel of the original image is where a program compares points. A length is
measured in the same space as the points, because that is where each program computed it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from diffcorr.metrics.columns import Floats, PairColumns


@dataclass(frozen=True)
class Space:
    """Where points, truth and threshold are measured.

    Attributes:
        side: of the square that the image is brought to, in pixels; None keeps the original pixels.
        fit: ``stretch`` scales x and y apart; ``letterbox`` scales both by side / longer image side and
            centres the picture in the square.
    """

    side: int | None = None
    fit: Literal["stretch", "letterbox"] = "stretch"

    def scale(self, size_P2: Floats) -> Floats:
        """(P, 2) pixels of the space for one original pixel along x and y, of images (width, height)."""
        if self.side is None:
            return np.ones_like(size_P2)
        if self.fit == "stretch":
            return self.side / size_P2
        return np.repeat(self.side / size_P2.max(1, keepdims=True), 2, axis=1)

    def offset(self, size_P2: Floats) -> Floats:
        """(P, 2) where the image's corner lies in the space: whole pixels, the odd one to the right."""
        if self.side is None or self.fit == "stretch":
            return np.zeros_like(size_P2)
        return np.floor((self.side - np.rint(size_P2 * self.scale(size_P2))) / 2)


SPACES = {
    "original": Space(),
    "stretched_512": Space(512, "stretch"),
    "letterbox_840": Space(840, "letterbox"),
}
"""``original``: pixels of the target image. ``stretched_512``: the square that Stable Diffusion 1.x reads,
aspect not kept. ``letterbox_840``: the padded square of SD+DINO and GeoAware-SC."""


def _sides(boxes_P4: Floats) -> Floats:
    return boxes_P4[:, 2:] - boxes_P4[:, :2]


def _source_bbox(columns: PairColumns, space: Space) -> Floats:
    return (_sides(columns.source_bbox) * space.scale(columns.source_size)).max(1)


def _target_bbox(columns: PairColumns, space: Space) -> Floats:
    return (_sides(columns.target_bbox) * space.scale(columns.target_size)).max(1)


def _target_bbox_by_x(columns: PairColumns, space: Space) -> Floats:
    return _sides(columns.target_bbox).max(1) * space.scale(columns.target_size)[:, 0]


def _image_side(columns: PairColumns, space: Space) -> Floats:
    return (columns.target_size * space.scale(columns.target_size)).max(1)


def _keypoint_extent(columns: PairColumns, space: Space) -> Floats:
    highest = np.maximum.reduceat(columns.target, columns.starts)
    lowest = np.minimum.reduceat(columns.target, columns.starts)
    return ((highest - lowest) * space.scale(columns.target_size)).max(1)


def _padded_extent(columns: PairColumns, space: Space) -> Floats:
    size = columns.target_size
    highest = np.maximum.reduceat(columns.target, columns.starts)
    # the program pads its list of points with -1 in the space and takes the padding for the least coordinate
    return (highest * space.scale(size) + space.offset(size)).max(1) + 1


THRESHOLDS: dict[str, Callable[[PairColumns, Space], Floats]] = {
    "target_bbox": _target_bbox,
    "source_bbox": _source_bbox,
    "target_bbox_by_x": _target_bbox_by_x,
    "image_side": _image_side,
    "keypoint_extent": _keypoint_extent,
    "padded_extent": _padded_extent,
}
"""Lengths (P,) in pixels of the space.

``target_bbox``: longer side of the target's box. ``source_bbox``: longer side of the source's box, in
the space of the source image. ``target_bbox_by_x``: longer side of the target's box in original pixels,
times the horizontal scale, whichever side it is. ``image_side``: longer side of the target image.
``keypoint_extent``: longer side of the box around the target's keypoints of the pair; 0 for a single
one. ``padded_extent``: the largest coordinate of the target's keypoints, plus 1.
"""
