"""Is one method better than another: the paired interval of the difference of their scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from diffcorr.errors import ProtocolError, UnknownNameError
from diffcorr.metrics.functional.bootstrap import Array, Interval, paired_bootstrap
from diffcorr.metrics.functional.segmentation import accuracy_from_counts, mean_iou_from_counts
from diffcorr.metrics.pck import PCK
from diffcorr.metrics.segmentation import SegmentationScore

_COUNT_STATISTICS = {"miou": mean_iou_from_counts, "accuracy": accuracy_from_counts}


def compare_points(
    a: PCK | Sequence[PCK],
    b: PCK | Sequence[PCK],
    metric: str = "pck@0.10",
    *,
    num_resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """95 % interval of PCK(a) - PCK(b), pairs resampled; fractions.

    A protocol that averages over categories is averaged anew in each resample, over the categories that
    occur in it.

    Args:
        a: the scores of a method; of several seeds, its mean over them is compared.
        b: the scores of another method, on the same pairs and points under the same protocol.
        metric: one of the protocol's, such as ``pck@0.10``.
        num_resamples: how often pairs are drawn anew.
        seed: of the drawing.

    Raises:
        ProtocolError: other pairs, other points or another protocol.
        UnknownNameError: no such metric.
    """
    all_a, all_b = ([m] if isinstance(m, PCK) else list(m) for m in (a, b))
    first = all_a[0]
    if metric not in first.names():
        raise UnknownNameError("metric", metric, first.names())
    for other in [*all_a, *all_b]:
        _check_same(first, other, first.per_pair()[0], other.per_pair()[0])
        _check_same_points(first, other)
    column = first.names().index(metric)
    group_of_N = first.groups().cpu().numpy()
    groups = np.unique(group_of_N)

    def items(metrics: Sequence[PCK]) -> Array:
        parts_N2 = np.mean([m.parts()[:, column].cpu().numpy() for m in metrics], 0)
        # a pair adds to the totals of its own group alone
        return np.asarray((group_of_N[:, None] == groups)[..., None] * parts_N2[:, None])

    def mean_of_groups(totals_RG2: Array) -> Array:
        with np.errstate(invalid="ignore"):
            return np.asarray(np.nanmean(totals_RG2[..., 0] / totals_RG2[..., 1], axis=-1))

    return paired_bootstrap(
        items(all_a), items(all_b), mean_of_groups, num_resamples=num_resamples, seed=seed
    )


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


def _check_same_points(a: PCK, b: PCK) -> None:
    """The same pairs with other numbers of points: left out of one method, scored in the other."""
    if not torch.equal(a.num_points().cpu(), b.num_points().cpu()):
        raise ProtocolError(
            f"expected two methods scored on the same points under {a.protocol.name!r}, found points left "
            "out of one of them; count missing points as wrong, or score both on what both predict"
        )
