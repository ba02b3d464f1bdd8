import numpy as np
import pytest
import torch

from diffcorr.errors import ProtocolError, UnknownNameError
from diffcorr.metrics import PCK, SegmentationScore, compare_masks, compare_points


def scored_points(protocol: str, noise: float, seed: int, num_pairs: int = 12) -> PCK:
    generator = torch.Generator().manual_seed(seed)
    metric = PCK(protocol)
    for index in range(num_pairs):
        target = torch.rand(2 + index % 3, 2, generator=generator) * 50
        metric.update(target + noise * torch.randn(target.shape, generator=generator), target, 40.0, index)
    return metric


def scored_masks(noise: float, seed: int) -> SegmentationScore:
    generator = torch.Generator().manual_seed(0)
    other = torch.Generator().manual_seed(seed)
    metric = SegmentationScore(4)
    for index in range(10):
        label = torch.randint(-1, 3, (8, 8), generator=generator)
        wrong = torch.rand(8, 8, generator=other) < noise
        noisy = torch.randint(0, 3, (8, 8), generator=other)
        metric.update(torch.where(wrong, noisy, label.clamp_min(0)), label, index)
    return metric


@pytest.mark.parametrize("protocol", ["standard", "per_point"])
def test_points_equal_scoring_every_resample_anew(protocol: str):
    a, b = scored_points(protocol, 2.0, 0), scored_points(protocol, 4.0, 1)
    interval = compare_points(a, b, "pck@0.05", num_resamples=200, seed=5)
    differences = []
    for weights in np.random.default_rng(5).multinomial(12, np.full(12, 1 / 12), 200):
        scores = []
        for metric in (a, b):
            resampled = PCK(protocol)
            for pair in np.repeat(np.arange(12), weights):
                resampled.index.append(torch.tensor([len(resampled.index)]))
                resampled.correct.append(metric.correct[pair])
                resampled.total.append(metric.total[pair])
                resampled.category.append(metric.category[pair])
            resampled._update_count = 1
            scores.append(resampled.compute()["pck@0.05"].item())
        differences.append(scores[0] - scores[1])
    expected = np.quantile(differences, [0.025, 0.975])
    assert (interval.low, interval.high) == pytest.approx(tuple(expected))
    observed = a.compute()["pck@0.05"] - b.compute()["pck@0.05"]
    assert interval.difference == pytest.approx(observed.item())


@pytest.mark.parametrize("metric", ["miou", "accuracy"])
def test_a_clearly_better_segmentation_is_above_zero(metric: str):
    better, worse = scored_masks(0.1, 1), scored_masks(0.6, 2)
    interval = compare_masks(better, worse, metric, num_resamples=1000)
    assert interval.difference == pytest.approx((better.compute()[metric] - worse.compute()[metric]).item())
    assert 0 < interval.low < interval.difference < interval.high
    equal = compare_masks(better, better, metric, num_resamples=100)
    assert (equal.low, equal.high) == (0, 0)


def test_only_like_is_compared_with_like():
    a = scored_points("standard", 2.0, 0)
    with pytest.raises(ProtocolError, match="12 items under 'standard' and 11 under 'standard'"):
        compare_points(a, scored_points("standard", 2.0, 0, num_pairs=11))
    with pytest.raises(ProtocolError, match="under 'per_point'"):
        compare_points(a, scored_points("per_point", 2.0, 0))
    with pytest.raises(UnknownNameError, match=r"known: pck@0.10, pck@0.05"):
        compare_points(a, a, "pck@0.2")
    with pytest.raises(UnknownNameError, match="known: miou, accuracy"):
        compare_masks(scored_masks(0.1, 1), scored_masks(0.1, 1), "dice")
