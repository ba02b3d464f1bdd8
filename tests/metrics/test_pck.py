import pickle

import pytest
import torch

from diffcorr.errors import ProtocolError, UnknownNameError
from diffcorr.metrics import PCK
from diffcorr.metrics.functional import pck_per_pair
from tests.helpers import metrics_reference


def random_pairs(num_pairs: int, seed: int = 0) -> list[tuple[torch.Tensor, torch.Tensor, float]]:
    generator = torch.Generator().manual_seed(seed)
    pairs = []
    for _ in range(num_pairs):
        num_points = int(torch.randint(1, 9, (1,), generator=generator))
        target = torch.rand(num_points, 2, generator=generator) * 100
        pred = target + torch.randn(num_points, 2, generator=generator) * 8
        pairs.append((pred, target, float(40 + 60 * torch.rand((), generator=generator))))
    return pairs


def test_a_point_on_the_threshold_is_correct_by_hand():
    target = torch.zeros(4, 2)
    pred = torch.tensor([[3.0, 4.0], [5.0, 0.0], [5.001, 0.0], [0.0, 0.0]])
    assert pck_per_pair(pred, target, 50, [0.1, 0.05]).tolist() == [0.75, 0.25]
    assert pck_per_pair(pred, target, 50, [0.1], inclusive=False).tolist() == [0.25]


def test_a_point_that_is_not_a_number_is_wrong():
    pred = torch.tensor([[float("nan"), 0.0], [0.0, 0.0]])
    assert pck_per_pair(pred, torch.zeros(2, 2), 10, [0.1]).tolist() == [0.5]


@pytest.mark.parametrize(("protocol", "average"), [("standard", "image"), ("per_point", "point")])
def test_equals_the_slow_reference_for_any_order_of_updates(protocol: str, average: str):
    pairs = random_pairs(20)
    metric = PCK(protocol)
    for index in torch.randperm(20).tolist():
        metric.update(*pairs[index], index=index)
    as_lists = [(p.double().tolist(), t.double().tolist(), length) for p, t, length in pairs]
    for name, alpha in (("pck@0.10", 0.10), ("pck@0.05", 0.05)):
        expected = metrics_reference.pck(as_lists, alpha, average)
        assert metric.compute()[name].item() == pytest.approx(expected, abs=1e-12)
    index, fractions = metric.per_pair()
    assert index.tolist() == list(range(20))
    assert fractions[7, 0].item() == pytest.approx(metrics_reference.pck(as_lists[7:8], 0.10))


def test_the_two_averages_differ_where_pairs_differ_in_size():
    right, wrong = (torch.zeros(1, 2), torch.zeros(1, 2)), (torch.full((3, 2), 99.0), torch.zeros(3, 2))
    values = {}
    for protocol in ("standard", "per_point"):
        metric = PCK(protocol)
        metric.update(*right, 10, index=0)
        metric.update(*wrong, 10, index=1)
        values[protocol] = metric.compute()["pck@0.10"].item()
    assert values == {"standard": 0.5, "per_point": 0.25}


def test_a_pair_repeated_by_a_padding_sampler_counts_once():
    pairs = random_pairs(3)
    once, padded = PCK(), PCK()
    for index in (0, 1, 2):
        once.update(*pairs[index], index=index)
    for index in (0, 1, 2, 0, 1):
        padded.update(*pairs[index], index=index)
    assert padded.compute() == once.compute()


def test_survives_pickling_and_forgets_on_reset():
    metric = PCK()
    metric.update(*random_pairs(1)[0], index=0)
    restored = pickle.loads(pickle.dumps(metric))
    assert restored.compute() == metric.compute()
    metric.reset()
    with pytest.raises(ProtocolError, match="found none"):
        metric.compute()


def test_errors_name_what_was_expected():
    with pytest.raises(UnknownNameError, match="known: standard, per_point"):
        PCK("pascal")
    with pytest.raises(ProtocolError, match=r"N >= 1, found \(0, 2\)"):
        pck_per_pair(torch.zeros(0, 2), torch.zeros(0, 2), 10, [0.1])
    with pytest.raises(ProtocolError, match="positive threshold length, found 0"):
        pck_per_pair(torch.zeros(1, 2), torch.zeros(1, 2), 0, [0.1])
