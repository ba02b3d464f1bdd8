import itertools

import numpy as np
import pytest

from diffcorr.errors import ProtocolError
from diffcorr.metrics import paired_bootstrap


def miou(totals: np.ndarray) -> np.ndarray:
    return np.nanmean(totals[:, 0] / totals.sum(1), axis=1)


def test_equals_the_exact_bootstrap_of_four_items():
    a, b = np.array([1.0, 0.5, 0.0, 0.75]), np.array([0.0, 0.5, 0.25, 0.25])
    # all 4**4 resamples, equally likely: what infinitely many draws tend to
    means = [np.mean([(a - b)[i] for i in draw]) for draw in itertools.product(range(4), repeat=4)]
    interval = paired_bootstrap(a, b, num_resamples=40_000)
    assert interval.difference == pytest.approx(np.mean(a - b))
    # the distribution is a lattice of steps of 1/16: agree within one step
    assert interval.low == pytest.approx(np.quantile(means, 0.025), abs=1 / 16 + 1e-9)
    assert interval.high == pytest.approx(np.quantile(means, 0.975), abs=1 / 16 + 1e-9)


def test_covers_the_normal_interval_of_many_items():
    rng = np.random.default_rng(0)
    hardness = rng.normal(size=2000) * 10
    a, b = hardness + rng.normal(0.3, 1, 2000), hardness
    interval = paired_bootstrap(a, b, num_resamples=4000)
    half = 1.96 * (a - b).std() / np.sqrt(2000)
    assert interval.low == pytest.approx((a - b).mean() - half, abs=half / 10)
    assert interval.high == pytest.approx((a - b).mean() + half, abs=half / 10)
    # pairing takes out what makes an item hard: unpaired, the interval would be ten times wider
    assert interval.low > 0


def test_statistics_of_totals_equal_a_loop_over_drawn_items():
    rng = np.random.default_rng(1)
    a, b = rng.integers(1, 50, (2, 6, 3, 4))
    interval = paired_bootstrap(a, b, miou, num_resamples=500, seed=3)
    assert interval.difference == pytest.approx(miou(a.sum(0)[None])[0] - miou(b.sum(0)[None])[0])
    weights = np.random.default_rng(3).multinomial(6, np.full(6, 1 / 6), 500)
    draws = [np.repeat(np.arange(6), w) for w in weights]
    values = [miou(a[d].sum(0)[None])[0] - miou(b[d].sum(0)[None])[0] for d in draws]
    assert (interval.low, interval.high) == pytest.approx(tuple(np.quantile(values, [0.025, 0.975])))


def test_seeded_and_checked():
    a, b = np.random.default_rng(0).random((2, 30))
    assert paired_bootstrap(a, b, seed=1) == paired_bootstrap(a, b, seed=1)
    assert paired_bootstrap(a, b, seed=1) != paired_bootstrap(a, b, seed=2)
    with pytest.raises(ProtocolError, match="same items"):
        paired_bootstrap(a, b[:3])
    with pytest.raises(ProtocolError, match="same items"):
        paired_bootstrap([], [])


def test_resamples_in_blocks_are_those_of_one_draw():
    a, b = np.random.default_rng(0).random((2, 30))
    weights = np.random.default_rng(7).multinomial(30, np.full(30, 1 / 30), 700)
    low, high = np.quantile(weights @ (a - b) / 30, [0.025, 0.975])
    interval = paired_bootstrap(a, b, num_resamples=700, seed=7)
    assert (interval.low, interval.high) == pytest.approx((low, high))


def test_over_many_items_the_interval_is_that_of_the_normal_distribution():
    # 3,000 items are drawn in another way than a few; a mean of so many is normal. The ends of an interval
    # of 20,000 draws are themselves uncertain by 0.02 errors.
    a, b = np.random.default_rng(1).random((2, 3000))
    interval = paired_bootstrap(a, b, num_resamples=20_000, seed=2)
    error = np.std(a - b) / np.sqrt(3000)
    assert interval.low == pytest.approx(np.mean(a - b) - 1.96 * error, abs=0.1 * error)
    assert interval.high == pytest.approx(np.mean(a - b) + 1.96 * error, abs=0.1 * error)
