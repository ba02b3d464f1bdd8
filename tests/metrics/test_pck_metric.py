"""The metric against a slow reference, as torchmetrics' own MetricTester goes about it, for every preset.

Bit for bit the same is asked of what must not depend on how pairs are batched.
"""

import copy
import math
import pickle
import random

import pytest
import torch

from diffcorr.errors import ProtocolError
from diffcorr.metrics import PCK, POINT_PROTOCOLS, pair_columns, score_points
from diffcorr.metrics.functional.pck import average_pairs, correct_points, distances
from tests.helpers import metrics_reference, protocol_reference

NAMES = list(POINT_PROTOCOLS)
PAIRS, PREDICTIONS = protocol_reference.random_pairs(60)


def one_by_one(protocol: str, order: list[int] | None = None, pairs=PAIRS, predictions=PREDICTIONS) -> PCK:
    """The metric fed pair by pair, as a loop over a data set does."""
    columns = pair_columns(pairs)
    metric = PCK(protocol)
    for index in order if order is not None else range(len(pairs)):
        metric.update(*arguments(metric, columns, pairs, predictions, [index]))
    return metric


def arguments(metric: PCK, columns, pairs, predictions, indices: list[int]) -> tuple:
    """What `update` takes for some of the pairs."""
    found = {(p.pair_id, p.keypoint): (p.x, p.y) for p in predictions}
    chosen = [pairs[index] for index in indices]
    pred = [found[pair.pair_id, name] for pair in chosen for name in pair.keypoints]
    target = [point for pair in chosen for point in pair.target_points]
    return (
        torch.tensor(pred, dtype=torch.float64),
        torch.tensor(target, dtype=torch.float64),
        torch.from_numpy(metric.protocol.threshold_lengths(columns)[indices]),
        torch.tensor(indices),
        torch.from_numpy(columns.category[indices]),
        torch.from_numpy(metric.protocol.scales(columns)[indices]),
        torch.tensor([len(pair.keypoints) for pair in chosen]),
    )


@pytest.mark.parametrize("protocol", NAMES)
def test_equals_the_slow_reference(protocol: str):
    expected = protocol_reference.pck(protocol, PAIRS, PREDICTIONS)
    assert 0 < expected["pck@0.10"] < 1
    for metric in (one_by_one(protocol), score_points(PREDICTIONS, PAIRS, protocol)):
        values = {name: value.item() for name, value in metric.compute().items()}
        assert values == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("protocol", NAMES)
def test_all_at_once_is_bit_for_bit_one_by_one(protocol: str):
    order = list(range(len(PAIRS)))
    random.Random(1).shuffle(order)
    at_once = score_points(PREDICTIONS, PAIRS, protocol)
    for other in (one_by_one(protocol), one_by_one(protocol, order)):
        for a, b in (
            (at_once.parts(), other.parts()),
            *zip(at_once.per_pair(), other.per_pair(), strict=True),
        ):
            assert torch.equal(a, b)
        assert at_once.compute() == other.compute()


def test_a_distance_does_not_depend_on_its_neighbours():
    generator = torch.Generator().manual_seed(0)
    pred, target, scale = (
        100 * torch.rand(1000, 2, generator=generator, dtype=torch.float64) for _ in range(3)
    )
    together = distances(pred, target, scale)
    apart = [distances(pred[n : n + 1], target[n : n + 1], scale[n : n + 1]) for n in range(1000)]
    assert torch.equal(together, torch.cat(apart))


@pytest.mark.parametrize("protocol", ["standard", "per_point"])
def test_equals_the_reference_that_was_there_before(protocol: str):
    found = {(p.pair_id, p.keypoint): (p.x, p.y) for p in PREDICTIONS}
    as_lists = [
        (
            [found[pair.pair_id, name] for name in pair.keypoints],
            list(pair.target_points),
            max(pair.target_bbox[2] - pair.target_bbox[0], pair.target_bbox[3] - pair.target_bbox[1]),
        )
        for pair in PAIRS
    ]
    expected = metrics_reference.pck(as_lists, 0.05, "image" if protocol == "standard" else "point")
    value = score_points(PREDICTIONS, PAIRS, protocol).compute()["pck@0.05"].item()
    assert value == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("protocol", ["standard", "sd_dino", "legacy_hedlin_willow"])
def test_the_life_of_a_metric(protocol: str):
    """forward gives the batch's own value and gathers; copies, pickles and resets behave."""
    columns = pair_columns(PAIRS)
    metric = PCK(protocol)
    for start in range(0, 60, 20):
        indices = list(range(start, start + 20))
        batch = metric(*arguments(metric, columns, PAIRS, PREDICTIONS, indices))
        expected = protocol_reference.pck(protocol, PAIRS[start : start + 20], PREDICTIONS)
        assert {k: v.item() for k, v in batch.items()} == pytest.approx(expected, abs=1e-12)
    whole = score_points(PREDICTIONS, PAIRS, protocol).compute()
    assert metric.compute() == whole
    for other in (pickle.loads(pickle.dumps(metric)), copy.deepcopy(metric), metric.clone()):
        assert other.compute() == whole
        assert other.protocol == metric.protocol
    metric.reset()
    metric.update(*arguments(metric, columns, PAIRS, PREDICTIONS, [3]))
    assert metric.per_pair()[0].tolist() == [3]
    assert not metric.is_differentiable
    assert metric.higher_is_better


def test_a_pair_that_comes_again_counts_once_also_in_batches():
    columns = pair_columns(PAIRS)
    metric = PCK("per_category")
    for indices in (list(range(40)), list(range(20, 60)), [0, 0, 59]):
        metric.update(*arguments(metric, columns, PAIRS, PREDICTIONS, indices))
    assert metric.compute() == score_points(PREDICTIONS, PAIRS, "per_category").compute()
    assert metric.per_pair()[0].tolist() == list(range(60))


@pytest.mark.parametrize("protocol", NAMES)
def test_what_must_hold_for_any_predictions(protocol: str):
    columns = pair_columns(PAIRS)
    values = score_points(PREDICTIONS, PAIRS, protocol).compute()
    alphas = POINT_PROTOCOLS[protocol].alphas
    ordered = [values[name].item() for _, name in sorted(zip(alphas, values, strict=True))]
    assert ordered == sorted(ordered)
    # the truth itself is right, a point at the other end of nowhere is not
    truth = PCK(protocol)
    _, target, *rest = arguments(truth, columns, PAIRS, PREDICTIONS, list(range(60)))
    truth.update(target, target, *rest)
    assert {value.item() for value in truth.compute().values()} == {1.0}
    nowhere = PCK(protocol)
    nowhere.update(target * math.nan, target, *rest)
    assert {value.item() for value in nowhere.compute().values()} == {0.0}
    # the order of pairs and of predictions does not matter
    again = score_points(PREDICTIONS[::-1], PAIRS[::-1], protocol).compute()
    assert {k: v.item() for k, v in again.items()} == pytest.approx({k: v.item() for k, v in values.items()})


def test_on_a_grid_of_whole_pixels_the_threshold_is_exact():
    """Ties are decided by fractions, not by how floats round: (dx, dy) against alpha x length, squared."""
    from fractions import Fraction

    grid = torch.cartesian_prod(torch.arange(-30.0, 31), torch.arange(0.0, 31))
    for length in (20, 50, 70, 100, 130, 170, 200, 260, 300):
        for alpha in ("0.05", "0.1", "0.15"):
            limit = (Fraction(alpha) * length) ** 2
            squares = [Fraction(int(x * x + y * y)) for x, y in grid.tolist()]
            for inclusive in (True, False):
                own = correct_points(grid, 0 * grid, length, [float(alpha)], inclusive=inclusive)[0]
                expected = [s <= limit if inclusive else s < limit for s in squares]
                assert own.tolist() == expected


def test_pairs_without_points_are_not_averaged_over():
    sums, total = torch.tensor([[1], [0], [2]]), torch.tensor([1, 0, 4])
    category = torch.tensor([0, 1, 2])
    assert average_pairs(sums, total, category, "image").tolist() == [0.75]
    assert average_pairs(sums, total, category, "point").tolist() == [0.6]
    assert average_pairs(sums, total, category, "category_point").tolist() == [0.75]
    with pytest.raises(ProtocolError, match="found none"):
        average_pairs(sums, 0 * total, category, "image")


def test_what_does_not_fit_together_is_refused():
    points = torch.zeros(3, 2)
    with pytest.raises(ProtocolError, match="averages over categories"):
        PCK("per_category").update(points, points, 10.0, 0)
    with pytest.raises(ProtocolError, match="measures in stretched_512: pass the scale"):
        PCK("legacy_hedlin_spair").update(points, points, 10.0, 0)
    for sizes, lengths, index in (
        ([2, 2], [9.0, 9.0], [0, 1]),
        ([3, 0], [9.0, 9.0], [0, 1]),
        ([1, 2], [9.0], [0, 1]),
        ([1, 2], [9.0, 9.0], [0]),
    ):
        with pytest.raises(ProtocolError, match="for each of 2 pairs"):
            PCK().update(
                points, points, torch.tensor(lengths), torch.tensor(index), sizes=torch.tensor(sizes)
            )
    with pytest.raises(ProtocolError, match="positive threshold length, found -1"):
        PCK().update(
            points, points, torch.tensor([9.0, -1.0]), torch.tensor([0, 1]), sizes=torch.tensor([1, 2])
        )
