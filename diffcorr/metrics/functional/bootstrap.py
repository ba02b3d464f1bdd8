"""Paired bootstrap interval of the difference of two methods (Efron & Tibshirani, 1993)."""

from __future__ import annotations

from collections.abc import Callable
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

    def difference(weights_RN: Array) -> Array:
        totals = (np.tensordot(weights_RN, items, axes=1) for items in (a, b))
        value_a, value_b = (statistic(total) for total in totals)
        return value_a - value_b

    rng = np.random.default_rng(seed)
    drawn = [
        difference(_draw(rng, num_items, min(_ROWS, num_resamples - start)))
        for start in range(0, num_resamples, _ROWS)
    ]
    tail = (1 - confidence) / 2
    low, high = np.nanquantile(np.concatenate(drawn), [tail, 1 - tail])
    observed = difference(np.ones((1, num_items)))
    return Interval(float(observed[0]), float(low), float(high), num_items)


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
