"""Is one method better than another: the paired interval of the difference of their scores."""

from __future__ import annotations

import numpy as np
import torch

from diffcorr.errors import ProtocolError, UnknownNameError
from diffcorr.metrics.functional.bootstrap import Array, Interval, paired_bootstrap
from diffcorr.metrics.functional.segmentation import accuracy_from_counts, mean_iou_from_counts
from diffcorr.metrics.pck import PCK
from diffcorr.metrics.segmentation import SegmentationScore

_COUNT_STATISTICS = {"miou": mean_iou_from_counts, "accuracy": accuracy_from_counts}


def compare_points(
    a: PCK, b: PCK, metric: str = "pck@0.10", *, num_resamples: int = 10_000, seed: int = 0
) -> Interval:
    """95 % interval of PCK(a) - PCK(b), pairs resampled; fractions.

    Raises:
        ProtocolError: other pairs or another protocol.
        UnknownNameError: no such metric.
    """
    if metric not in a.names():
        raise UnknownNameError("metric", metric, a.names())
    _check_same(a, b, a.per_pair()[0], b.per_pair()[0])
    items_a, items_b = (m.parts()[:, a.names().index(metric)].cpu().numpy() for m in (a, b))

    def ratio(totals_R2: Array) -> Array:
        return totals_R2[:, 0] / totals_R2[:, 1]

    return paired_bootstrap(items_a, items_b, ratio, num_resamples=num_resamples, seed=seed)


def compare_masks(
    a: SegmentationScore,
    b: SegmentationScore,
    metric: str = "miou",
    *,
    num_resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """95 % interval of score(a) - score(b), images resampled and counts summed anew; fractions.

    Raises:
        ProtocolError: other images or another protocol.
        UnknownNameError: no such metric.
    """
    if metric not in _COUNT_STATISTICS:
        raise UnknownNameError("metric", metric, _COUNT_STATISTICS)
    (index_a, items_a), (index_b, items_b) = a.per_image(), b.per_image()
    _check_same(a, b, index_a, index_b)

    def statistic(totals_R3C: Array) -> Array:
        return np.asarray(_COUNT_STATISTICS[metric](torch.from_numpy(totals_R3C)))

    items = (items_a.cpu().numpy(), items_b.cpu().numpy())
    return paired_bootstrap(*items, statistic, num_resamples=num_resamples, seed=seed)


def _check_same(
    a: PCK | SegmentationScore, b: PCK | SegmentationScore, index_a: torch.Tensor, index_b: torch.Tensor
) -> None:
    if a.protocol != b.protocol or not torch.equal(index_a.cpu(), index_b.cpu()):
        raise ProtocolError(
            f"expected two methods scored on the same items under one protocol, found {len(index_a)} items "
            f"under {a.protocol.name!r} and {len(index_b)} under {b.protocol.name!r}; score both alike"
        )
