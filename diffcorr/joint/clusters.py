"""Segments of a whole data set brought under ids that mean the same in all images, without labels.

Segments of zero-shot methods are numbered image by image. Clustered by what they look like to the model,
they can be scored with one assignment for the data set (protocol ``global``), as trained clusterings are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from diffcorr.correspondence.features.base import FeatureSource
from diffcorr.errors import DiffcorrError
from diffcorr.segmentation.base import Mask
from diffcorr.segmentation.kmeans import best_kmeans
from diffcorr.segmentation.proposals import bilinear_weights
from diffcorr.types import UInt8Image

Ids = npt.NDArray[np.int64]
"""Global id of each segment id of an image, (highest id + 1,)."""


@runtime_checkable
class SegmentClustering(Protocol):
    """Gives the segments of a data set global ids. One file entry and one config each."""

    name: str

    def __call__(
        self, images: Mapping[str, UInt8Image], masks: Mapping[str, Mask], num_classes: int, key: str = ""
    ) -> dict[str, Ids]:
        """Global ids of every image's segments.

        Args:
            images: by image id, read one at a time.
            masks: segments of the same images.
            num_classes: classes of the data set; the only thing known of them.
            key: of the data set, from which random numbers derive together with image ids.

        Returns:
            For every image ``ids`` such that ``ids[mask]`` is its mask of global ids. They do not depend on
            the order of the images.
        """


def segment_features(features_Dhw: Tensor, mask: Mask) -> tuple[Tensor, Tensor]:
    """Mean feature of each segment.

    Args:
        features_Dhw: of the image, on cells that cover it; interpolated bilinearly to its pixels.
        mask: (H, W) segment ids >= 0.

    Returns:
        Ids that have a pixel (K,), ascending, and their means (K, D).
    """
    ids = torch.from_numpy(np.unique(mask))
    segments = torch.from_numpy(mask)
    height, width = features_Dhw.shape[1:]
    rows, columns = (
        bilinear_weights(cells, pixels, 0, cells).to(features_Dhw)
        for cells, pixels in ((height, mask.shape[0]), (width, mask.shape[1]))
    )
    # how much each cell contributes to each segment: features at the size of a photo never exist
    shares_Khw = torch.stack([rows.T @ (segments == k).to(features_Dhw) @ columns for k in ids])
    sums_KD = shares_Khw.flatten(1) @ features_Dhw.flatten(1).T
    return ids, sums_KD / shares_Khw.sum((1, 2))[:, None]


def cluster_features(features_ND: Tensor, num_clusters: int, *, restarts: int = 10, seed: int = 0) -> Tensor:
    """K-means by cosine, of features that are first brought to mean 0 and variance 1 over the data set.

    What all segments share (the mean) would make all cosines near 1, and a few channels of large variance
    would decide them.

    Args:
        features_ND: of N segments.
        num_clusters: K; no more than N are made.
        restarts: k-means++ starts; the tightest clustering is kept.
        seed: of the starts.

    Returns:
        (N,) int64 in 0..K-1, the largest cluster first, of equals the one with the first segment.
    """
    spread = features_ND.std(0, unbiased=False)
    points = (features_ND - features_ND.mean(0)) / spread.clamp_min(1e-6 * float(spread.max()) + 1e-12)
    num_clusters = min(num_clusters, len(points))
    labels, _ = best_kmeans(F.normalize(points, dim=1), num_clusters, restarts=restarts, seed=seed)
    clusters, first, inverse, counts = np.unique(
        labels.cpu().numpy(), return_index=True, return_inverse=True, return_counts=True
    )
    rank = np.empty(len(clusters), dtype=np.int64)
    rank[np.lexsort((first, -counts))] = np.arange(len(clusters))
    return torch.from_numpy(rank[inverse])


@dataclass(frozen=True, kw_only=True)
class FeatureClusters:
    """Clusters segments by the mean of the frozen model's features.

    Args:
        features: where features come from.
        name: goes behind that of the method whose segments are clustered.
        num_clusters: K, or ``classes``: as many as the data set has.
        restarts, seed: see `cluster_features`.

    Raises:
        DiffcorrError: a number of clusters that is none.
    """

    features: FeatureSource
    name: str = "features"
    num_clusters: int | Literal["classes"] = "classes"
    restarts: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        if not (isinstance(self.num_clusters, int) and self.num_clusters >= 1) and (
            self.num_clusters != "classes"
        ):
            raise DiffcorrError(
                f"expected num_clusters as a number >= 1 or 'classes', found {self.num_clusters!r}"
            )

    def __call__(
        self, images: Mapping[str, UInt8Image], masks: Mapping[str, Mask], num_classes: int, key: str = ""
    ) -> dict[str, Ids]:
        """Global ids, see `SegmentClustering`."""
        wanted = check_num_clusters(num_classes) if self.num_clusters == "classes" else self.num_clusters
        # sorted, so that neither the draws of K-means nor its sums depend on the order of the data set
        order = sorted(masks)
        of_images = [segment_features(self.features(images[i], f"{key}/{i}").cpu(), masks[i]) for i in order]
        points = torch.cat([means for _, means in of_images])
        found = cluster_features(points, wanted, restarts=self.restarts, seed=self.seed)
        parts = found.split([len(ids) for ids, _ in of_images])
        return {i: _table(ids, own) for i, (ids, _), own in zip(order, of_images, parts, strict=True)}


@dataclass(frozen=True, kw_only=True)
class ChanceClusters:
    """Baseline: every segment gets one of as many ids as there are classes, at random."""

    name: str = "chance"
    seed: int = 0

    def __call__(
        self, images: Mapping[str, UInt8Image], masks: Mapping[str, Mask], num_classes: int, key: str = ""
    ) -> dict[str, Ids]:
        """Global ids, see `SegmentClustering`."""
        check_num_clusters(num_classes)
        generator = torch.Generator().manual_seed(self.seed)
        tables = {}
        for i in sorted(masks):
            ids = torch.from_numpy(np.unique(masks[i]))
            tables[i] = _table(ids, torch.randint(num_classes, (len(ids),), generator=generator))
        return tables


def check_num_clusters(num_classes: int) -> int:
    """The number of classes; DiffcorrError where a data set has none."""
    if num_classes < 1:
        raise DiffcorrError(
            "expected classes to take the number of clusters from, found a data set without any: set "
            "clusters.num_clusters to a number, and cluster_baselines=[]"
        )
    return num_classes


def _table(ids: Tensor, found: Tensor) -> Ids:
    table = torch.zeros(int(ids[-1]) + 1, dtype=torch.int64)
    table[ids] = found
    return table.numpy()
