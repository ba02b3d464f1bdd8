"""K-means on the aggregated attention maps: the baselines K-Means-C and K-Means-S of DiffSeg's tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from diffcorr.errors import DiffcorrError
from diffcorr.segmentation.base import CountsFrom
from diffcorr.segmentation.framing import Grid
from diffcorr.segmentation.grouper import AttentionGrouper
from diffcorr.segmentation.kmeans import best_kmeans


@dataclass(frozen=True, kw_only=True)
class KMeansAttention(AttentionGrouper):
    """Clusters the rows of the affinity graph, one distribution per position, by Euclidean distance.

    Args, beside those of `AttentionGrouper`:
        num_segments: K, the same for every image (K-Means-C), or ``classes``: as many as the image's label
            has classes (K-Means-S), which no method without labels can know.
        restarts: k-means++ starts; the tightest clustering is kept.
        max_iterations: Lloyd's iterations of each start.

    Raises:
        DiffcorrError: a value outside of its range.
    """

    name: str = "kmeans_attention"
    num_segments: int | Literal["classes"] = 6
    restarts: int = 4
    max_iterations: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        check_num_segments(self.num_segments)

    @property
    def counts_from(self) -> CountsFrom:
        """``labels`` for K-Means-S."""
        return "labels" if self.num_segments == "classes" else "image"

    def cluster(self, values: Tensor, grid: Grid, num_segments: Sequence[int] | None = None) -> Tensor:
        """How near each position is to each centre; see `AttentionGrouper.cluster`."""
        counts = counts_of_images(self.name, self.num_segments, num_segments, values)
        found = values.new_full((len(values), max(counts), values.shape[1]), torch.nan)
        for own, count, scores in zip(values, counts, found, strict=True):
            _, centres = best_kmeans(
                own, count, restarts=self.restarts, max_iterations=self.max_iterations, seed=self.seed
            )
            # the nearest centre has the highest score, also between cells, where both are interpolated
            scores[:count] = (own @ centres.T - centres.square().sum(1) / 2).T
        return found


def check_num_segments(num_segments: int | str) -> None:
    """DiffcorrError unless it is a positive number or ``classes``."""
    if not (isinstance(num_segments, int) and num_segments >= 1) and num_segments != "classes":
        raise DiffcorrError(f"expected num_segments as a number >= 1 or 'classes', found {num_segments!r}")


def counts_of_images(
    name: str, configured: int | str, given: Sequence[int] | None, values: Tensor
) -> list[int]:
    """K of each image of a batch, at most one segment for each position.

    Args:
        name: of the method, for the message.
        configured: one number for all, or ``classes``.
        given: numbers of the images, where the configuration asks for them.
        values: (B, hw, ...).

    Raises:
        DiffcorrError: no numbers, or not as many as there are images.
    """
    if isinstance(configured, int):
        return [min(configured, values.shape[1])] * len(values)
    if given is None or len(given) != len(values):
        found = "none" if given is None else len(given)
        raise DiffcorrError(
            f"{name} expects the number of classes of each of {len(values)} images, found {found}; "
            "give labels, or a number as num_segments"
        )
    return [min(count, values.shape[1]) for count in given]
