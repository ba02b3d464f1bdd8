"""Sample and result types, and the legend of dimension letters.

Legend, used as a suffix in tensor names where shapes matter (``maps_Lhw``):
    B batch, Q queries, R rounds, N items (query, round) or points, P prompt tokens, C heads,
    L layers, H W image height and width, h w latent or map height and width, D width, K segments.

Coordinates: points are (x, y) in pixels of the ORIGINAL image, pixel centres at +0.5; boxes are
(x_min, y_min, x_max, y_max) in the same pixels; sizes are (width, height).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypedDict, runtime_checkable

import numpy as np
import numpy.typing as npt

UInt8Image = npt.NDArray[np.uint8]
"""An RGB image, shape (H, W, 3), values 0..255."""

Point = tuple[float, float]
Box = tuple[float, float, float, float]
Size = tuple[int, int]


@dataclass(frozen=True)
class Query:
    """One source keypoint. The unit of everything: fitted once, shared by all pairs that use it."""

    dataset: str
    image_id: str
    keypoint: str
    point: Point

    @property
    def id(self) -> str:
        """Identity (data set, image, keypoint) as one string; random numbers derive from it."""
        return f"{self.dataset}/{self.image_id}/{self.keypoint}"


@dataclass(frozen=True)
class Pair:
    """Two images and the keypoints that both show (index only, no pixels).

    ``source_points[k]`` and ``target_points[k]`` are keypoint ``keypoints[k]``, visible in both.
    """

    pair_id: str
    dataset: str
    category: str
    source_id: str
    target_id: str
    keypoints: tuple[str, ...]
    source_points: tuple[Point, ...]
    target_points: tuple[Point, ...]
    source_bbox: Box
    target_bbox: Box
    source_size: Size
    target_size: Size
    tags: Mapping[str, object] = field(default_factory=dict)

    def queries(self) -> list[Query]:
        """The source keypoints of this pair, in the order of ``keypoints``."""
        return [
            Query(self.dataset, self.source_id, name, point)
            for name, point in zip(self.keypoints, self.source_points, strict=True)
        ]


@runtime_checkable
class PairDataset(Protocol):
    """A correspondence data set: an index of pairs, and images by id."""

    name: str
    split: str

    @property
    def pairs(self) -> Sequence[Pair]:
        """All pairs, in the data set's fixed order."""

    def image(self, image_id: str) -> UInt8Image:
        """The RGB image of that id."""


@runtime_checkable
class LabelledPairs(PairDataset, Protocol):
    """Pairs whose images have label maps of the object: 0 is not the object, 1.. are its parts or classes."""

    @property
    def label_names(self) -> Sequence[str]:
        """Name of every value of the label maps, the first for what is not the object."""

    def label(self, image_id: str) -> npt.NDArray[np.int64]:
        """(H, W) of the image of that id, -1 ignored."""


class SegmentationSample(TypedDict):
    """One image with its semantic labels."""

    image_id: str
    image: UInt8Image
    label: npt.NDArray[np.int64]  # (H, W), class index, -1 ignored
    tags: Mapping[str, object]


@runtime_checkable
class SegmentationDataset(Protocol):
    """A segmentation data set: ``len``, indexing, and the class names of its labels."""

    name: str
    split: str
    classes: Sequence[str]

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> SegmentationSample: ...


@dataclass(frozen=True)
class PointPrediction:
    """Where a method says that a source keypoint of a pair lies in the target.

    ``layer_points`` and ``round_points`` are what each layer, by name, and each round, by number, says
    alone; empty where the method has none.
    """

    pair_id: str
    keypoint: str
    query_id: str
    x: float
    y: float
    confidence: float
    layer_points: Mapping[str, Point] = field(default_factory=dict)
    round_points: Mapping[int, Point] = field(default_factory=dict)
