"""How sure a score is, and whether one method is better than another: bootstrap intervals over pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
import torch

from diffcorr.errors import ProtocolError, UnknownNameError
from diffcorr.metrics.functional.bootstrap import Array, Interval, drawn_totals, limits, paired_bootstrap
from diffcorr.metrics.functional.segmentation import accuracy_from_counts, mean_iou_from_counts
from diffcorr.metrics.pck import PCK
from diffcorr.metrics.segmentation import SegmentationScore

_COUNT_STATISTICS = {"miou": mean_iou_from_counts, "accuracy": accuracy_from_counts}


Entry = tuple[PCK | Sequence[PCK], str]
"""A method's score, or those of its seeds, and the metric that is meant, such as ``pck@0.10``."""


@dataclass(frozen=True)
class Estimate:
    """A score and its percentile interval."""

    value: float
    low: float
    high: float
    num_items: int

    def times(self, factor: float) -> Estimate:
        """The same in other units: ``times(100)`` for percent."""
        return Estimate(factor * self.value, factor * self.low, factor * self.high, self.num_items)


@dataclass(frozen=True)
class Resampled:
    """Scores of E entries when pairs are drawn anew, the same draws for all; fractions.

    Attributes:
        values: (E,) on the pairs themselves, the mean over seeds.
        drawn: (R, E) on the pairs drawn.
        num_items: how many pairs.
    """

    values: Array
    drawn: Array
    num_items: int

    def estimate(self, entry: int) -> Estimate:
        """The 95 % interval of one entry's score."""
        return Estimate(float(self.values[entry]), *limits(self.drawn[:, entry]), self.num_items)

    def difference(self, a: int, b: int) -> Interval:
        """The 95 % interval of entry ``a`` minus entry ``b``: what is hard for both cancels out."""
        low, high = limits(self.drawn[:, a] - self.drawn[:, b])
        return Interval(float(self.values[a] - self.values[b]), low, high, self.num_items)


def resample_scores(entries: Sequence[Entry], *, num_resamples: int = 10_000, seed: int = 0) -> Resampled:
    """Draw the pairs anew for any number of methods, protocols and metrics at once.

    A protocol that averages over categories is averaged anew in each resample, over the categories that
    occur in it.

    Args:
        entries: scores on the same pairs.
        num_resamples: R, how often pairs are drawn anew.
        seed: of the drawing.

    Raises:
        ProtocolError: other pairs, or other points of one method under its protocol.
        UnknownNameError: no such metric.
    """
    parts = [_parts(scores, metric) for scores, metric in entries]
    places = [_seeds(scores)[0].per_pair()[0].cpu() for scores, _ in entries]
    for place, (scores, _) in zip(places, entries, strict=True):
        if not torch.equal(place, places[0]):
            _refuse(_seeds(entries[0][0])[0], _seeds(scores)[0], len(places[0]), len(place))
    ends = np.cumsum([p.shape[1] for p in parts])

    def scores_of(totals_RK: Array) -> Array:
        return np.stack([_mean_of_groups(t) for t in np.split(totals_RK, ends[:-1], axis=1)], 1)

    items_NK = np.hstack(parts)
    drawn = [scores_of(totals) for totals in drawn_totals(items_NK, num_resamples, seed)]
    return Resampled(scores_of(items_NK.sum(0, keepdims=True))[0], np.concatenate(drawn), len(items_NK))


def compare_points(
    a: PCK | Sequence[PCK],
    b: PCK | Sequence[PCK],
    metric: str = "pck@0.10",
    *,
    num_resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """95 % interval of PCK(a) - PCK(b), pairs resampled; fractions.

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
    _check_alike([*_seeds(a), *_seeds(b)])
    return resample_scores([(a, metric), (b, metric)], num_resamples=num_resamples, seed=seed).difference(
        0, 1
    )


def _seeds(scores: PCK | Sequence[PCK]) -> Sequence[PCK]:
    return [scores] if isinstance(scores, PCK) else scores


def _parts(scores: PCK | Sequence[PCK], metric: str) -> Array:
    """(N, G x 2) what each pair adds to numerator and denominator of each of the G groups' averages."""
    seeds = _seeds(scores)
    if metric not in (names := seeds[0].names()):
        raise UnknownNameError("metric", metric, names)
    _check_alike(seeds)
    parts_N2 = np.mean([m.parts()[:, names.index(metric)].cpu().numpy() for m in seeds], 0)
    group_of_N = seeds[0].groups().cpu().numpy()
    # a pair adds to the totals of its own group alone
    parts_NG2 = (group_of_N[:, None] == np.unique(group_of_N))[..., None] * parts_N2[:, None]
    return np.asarray(parts_NG2.reshape(len(parts_N2), -1))


def _mean_of_groups(totals_RK: Array) -> Array:
    totals_RG2 = totals_RK.reshape(len(totals_RK), -1, 2)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.nanmean(totals_RG2[..., 0] / totals_RG2[..., 1], axis=-1))


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


def _check_alike(metrics: Sequence[PCK]) -> None:
    """The same pairs under one protocol, and no points left out of one method that another has."""
    first = metrics[0]
    for other in metrics[1:]:
        _check_same(first, other, first.per_pair()[0], other.per_pair()[0])
        if not torch.equal(first.num_points().cpu(), other.num_points().cpu()):
            raise ProtocolError(
                f"expected two methods scored on the same points under {first.protocol.name!r}, found points "
                "left out of one of them; count missing points as wrong, or score both on what both predict"
            )


def _check_same(
    a: PCK | SegmentationScore, b: PCK | SegmentationScore, index_a: torch.Tensor, index_b: torch.Tensor
) -> None:
    if a.protocol != b.protocol or not torch.equal(index_a.cpu(), index_b.cpu()):
        _refuse(a, b, len(index_a), len(index_b))


def _refuse(a: PCK | SegmentationScore, b: PCK | SegmentationScore, num_a: int, num_b: int) -> NoReturn:
    raise ProtocolError(
        f"expected two methods scored on the same items under one protocol, found {num_a} items under "
        f"{a.protocol.name!r} and {num_b} under {b.protocol.name!r}; score both alike"
    )
