"""Bootstrap over items (Efron & Tibshirani, 1993): totals of drawn items, and a paired interval from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from diffcorr.errors import ProtocolError

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A difference and its percentile interval, in the units of the statistic."""

    difference: float
    low: float
    high: float
    num_items: int

    def times(self, factor: float) -> Interval:
        """The same in other units: ``times(100)`` for percent."""
        return Interval(factor * self.difference, factor * self.low, factor * self.high, self.num_items)


def paired_bootstrap(
    items_a: npt.ArrayLike,
    items_b: npt.ArrayLike,
    statistic: Callable[[Array], Array] | None = None,
    *,
    num_resamples: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Interval of statistic(a) - statistic(b) when the items are drawn anew with replacement.

    Both methods are resampled with the same items (pairs, images), so that what makes an item hard for
    both cancels out.

    Args:
        items_a: (N, ...) what each item adds to the totals, of the first method.
        items_b: (N, ...) the same of the second, items in the same order.
        statistic: maps totals (R, ...) over items to R values; by default total / N, the mean. For a mean
            IoU the items are counts (N, 3, C) and the statistic is the mean IoU of counts.
        num_resamples: R.
        confidence: share of resamples inside of the interval.
        seed: of the resampling.

    Returns:
        The difference on the items themselves and the interval.

    Raises:
        ProtocolError: no items, or a different number of them.
    """
    a, b = np.asarray(items_a, dtype=np.float64), np.asarray(items_b, dtype=np.float64)
    if a.shape != b.shape or a.ndim == 0 or len(a) == 0:
        raise ProtocolError(f"expected the same items of both methods, found shapes {a.shape} and {b.shape}")
    num_items = len(a)
    statistic = statistic or (lambda totals: totals / num_items)

    def difference(totals_RK: Array) -> Array:
        value_a, value_b = (statistic(t.reshape(-1, *a.shape[1:])) for t in np.hsplit(totals_RK, 2))
        return value_a - value_b

    items_NK = np.hstack([a.reshape(num_items, -1), b.reshape(num_items, -1)])
    drawn = [difference(totals) for totals in drawn_totals(items_NK, num_resamples, seed)]
    low, high = limits(np.concatenate(drawn), confidence)
    observed = difference(items_NK.sum(0, keepdims=True))
    return Interval(float(observed[0]), low, high, num_items)


def drawn_totals(items_NK: Array, num_resamples: int = 10_000, seed: int = 0) -> Iterator[Array]:
    """Totals (rows, K) over N items drawn anew with replacement, a few hundred resamples at a time.

    All columns are totals of the same draws, so that they may be compared with one another.
    """
    rng = np.random.default_rng(seed)
    for start in range(0, num_resamples, _ROWS):
        yield _draw(rng, len(items_NK), min(_ROWS, num_resamples - start)) @ items_NK


def limits(drawn_R: Array, confidence: float = 0.95) -> tuple[float, float]:
    """The percentile interval of drawn values; those that are not defined (NaN) are left out."""
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(drawn_R, [tail, 1 - tail])
    return float(low), float(high)


_ROWS = 256
"""Resamples at a time: weights of all 10,000 over a benchmark of 12,234 pairs are a gigabyte."""


def _draw(rng: np.random.Generator, num_items: int, num_resamples: int) -> Array:
    """How often each item is drawn, instead of the draws: totals become one matrix product."""
    if num_items <= 1024:
        weights = rng.multinomial(num_items, np.full(num_items, 1 / num_items), num_resamples)
    else:
        # the same distribution, but a multinomial takes ten times as long to draw over many items
        draws = rng.integers(num_items, size=(num_resamples, num_items))
        draws += np.arange(num_resamples)[:, None] * num_items
        weights = np.bincount(draws.ravel(), minlength=num_resamples * num_items)
        weights = weights.reshape(num_resamples, num_items)
    return weights.astype(np.float64)
