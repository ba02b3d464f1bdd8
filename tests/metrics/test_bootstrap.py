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
