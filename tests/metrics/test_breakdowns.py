"""Parts, curves and intervals: by hand, and against scoring the part as a data set of its own."""

import dataclasses

import numpy as np
import pytest

from diffcorr.errors import ProtocolError, UnknownNameError
from diffcorr.metrics import (
    POINT_PROTOCOLS,
    Handling,
    breakdown,
    compare_points,
    curve_area,
    match_points,
    pair_columns,
    pck_curve,
    resample_scores,
    score_matched,
    score_points,
)
from diffcorr.metrics.groupings import mirrored_name, part_name
from diffcorr.types import Pair, PointPrediction
from tests.helpers import protocol_reference
from tests.helpers.protocol_reference import make_pair, random_pairs

PAIRS, PREDICTIONS = random_pairs(60)
MATCHED = match_points(pair_columns(PAIRS), PREDICTIONS)
NAMES = list(POINT_PROTOCOLS)


def only(keep) -> tuple[list[Pair], list[PointPrediction]]:
    """The data set of the keypoints for which keep(pair, keypoint), as if there were no others."""
    pairs = []
    for pair in PAIRS:
        places = [n for n, name in enumerate(pair.keypoints) if keep(pair, name)]
        if places:
            parts = {
                field: tuple(getattr(pair, field)[n] for n in places)
                for field in ("keypoints", "source_points", "target_points")
            }
            pairs.append(dataclasses.replace(pair, **parts))
    return pairs, PREDICTIONS


@pytest.mark.parametrize("protocol", [name for name in NAMES if name != "legacy_hedlin_willow"])
@pytest.mark.parametrize(
    ("by", "group", "keep"),
    [
        ("category", "bee", lambda pair, name: pair.category == "bee"),
        ("keypoint", "cow/k3", lambda pair, name: (pair.category, name) == ("cow", "k3")),
        ("truncation", "2", lambda pair, name: pair.tags["truncation"] == 2),
    ],
)
def test_a_part_is_scored_as_if_there_were_no_other_points(protocol: str, by: str, group: str, keep):
    # Willow's length depends on which keypoints there are, so that there a part is no data set of its own
    pairs, predictions = only(keep)
    expected = protocol_reference.pck(protocol, pairs, predictions)
    rows = [row for row in breakdown(MATCHED, protocol, by) if row.group == group]
    assert {row.metric: row.value for row in rows} == pytest.approx({k: 100 * v for k, v in expected.items()})
    for row in rows:
        assert (row.protocol, row.by, row.num_pairs) == (protocol, by, len(pairs))
        assert row.num_points == sum(len(pair.keypoints) for pair in pairs)


def test_parts_of_a_pooled_score_add_up_to_it():
    whole = score_matched(MATCHED, "per_point").compute()["pck@0.10"].item()
    for by in ("category", "keypoint", "truncation", "styles"):
        rows = [row for row in breakdown(MATCHED, "per_point", by) if row.metric == "pck@0.10"]
        assert sum(row.num_points for row in rows) == len(MATCHED.points)
        total = sum(row.value * row.num_points for row in rows)
        assert total / len(MATCHED.points) == pytest.approx(100 * whole)


def test_rows_are_tidy():
    row = breakdown(MATCHED, "dift", "styles")[0]
    assert list(row.to_dict()) == ["protocol", "by", "group", "metric", "value", "num_pairs", "num_points"]
    assert (row.protocol, row.by, row.group, row.metric) == ("dift", "styles", "same", "pck@0.10")


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("left_eye", "right_eye"),
        ("right wing", "left wing"),
        ("L_EarBase", "R_EarBase"),
        ("frontLeftPaw", "frontRightPaw"),
        ("front-l-wheel", "front-r-wheel"),
        ("Left_Knee", "Right_Knee"),
        ("LEFT", "RIGHT"),
        ("beak", None),
        ("7", None),
        ("bright_spot", None),
        ("cleft", None),
        ("tail_light", None),
        ("left_right_edge", None),
    ],
)
def test_look_alikes_by_name(name: str, other: str | None):
    assert mirrored_name(name) == other
    if other:
        assert mirrored_name(other) == name


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("left_eye", "eye"),
        ("rightEye", "eye"),
        ("Right Wing", "wing"),
        ("front-l-wheel", "front_wheel"),
        ("Front_R_Wheel", "front_wheel"),
        ("beak", "beak"),
        ("tail_light", "tail_light"),
        ("LEFT", "LEFT"),
        ("left_right_edge", "left_right_edge"),
    ],
)
def test_what_a_keypoint_is_whatever_its_side(name: str, part: str):
    assert part_name(name) == part


def faces(**changes) -> list[Pair]:
    points = ((10.0, 10.0), (50.0, 10.0), (30.0, 60.0))
    names = ("left_eye", "right_eye", "chin")
    full = make_pair(0, keypoints=names, source_points=points, target_points=points, **changes)
    half = make_pair(1, keypoints=names[1:], source_points=points[1:], target_points=points[1:], **changes)
    return [full, half]


def found(pairs: list[Pair], wrong: set[tuple[str, str]]) -> list[PointPrediction]:
    return [
        PointPrediction(p.pair_id, name, "", x + 500 * ((p.pair_id, name) in wrong), y, 1.0)
        for p in pairs
        for name, (x, y) in zip(p.keypoints, p.target_points, strict=True)
    ]


def values(pairs: list[Pair], predictions: list[PointPrediction], by: str) -> dict[str, tuple[float, int]]:
    matched = match_points(pair_columns(pairs), predictions)
    rows = breakdown(matched, "per_point", by)
    return {f"{r.by}={r.group}": (r.value, r.num_points) for r in rows if r.metric == "pck@0.10"}


def test_the_geometry_aware_subset_needs_both_of_the_two():
    # the right eye of the second pair has no left one beside it: nothing to take it for
    pairs = faces()
    assert values(pairs, found(pairs, {("pair0", "left_eye")}), "geometry") == {
        "geometry=look-alike": (50.0, 2),
        "geometry=unique": (100.0, 3),
    }
    with pytest.raises(ProtocolError, match="names that tell sides"):
        breakdown(MATCHED, "standard", "geometry")


def test_parts_join_sides_and_categories():
    cat, dog = faces(), [dataclasses.replace(p, pair_id=f"d{p.pair_id}", category="dog") for p in faces()]
    wrong = {("pair0", "left_eye"), ("dpair1", "chin")}
    assert values([*cat, *dog], found([*cat, *dog], wrong), "part") == {
        "part=eye": (pytest.approx(100 * 5 / 6), 6),
        "part=chin": (75.0, 4),
    }
    numbered = [dataclasses.replace(p, keypoints=tuple("012"[: len(p.keypoints)])) for p in cat]
    with pytest.raises(ProtocolError, match="found the number 0"):
        values(numbered, found(numbered, set()), "part")


def test_visible_and_occluded():
    pairs = [
        dataclasses.replace(faces()[0], tags={"visible": (True, False, True), "occlusion": 3}),
        dataclasses.replace(faces()[1], tags={"occlusion": 2}),
        dataclasses.replace(faces()[1], pair_id="pair2", tags={"occlusion": 0}),
        dataclasses.replace(faces()[1], pair_id="pair3"),
    ]
    wrong = {("pair0", "right_eye"), ("pair3", "chin")}
    assert values(pairs, found(pairs, wrong), "visibility") == {
        "visibility=occluded": (pytest.approx(200 / 3), 3),
        "visibility=visible": (100.0, 4),
    }
    with pytest.raises(ProtocolError, match="tag 'visible' or 'occlusion'"):
        values(faces(), found(faces(), set()), "visibility")


def test_difficulty_is_every_flag_that_there_is():
    flags = {"viewpoint_variation": 2, "occlusion": 0}
    pairs = [dataclasses.replace(faces()[0], tags=flags), dataclasses.replace(faces()[1], tags=flags)]
    assert values(pairs, found(pairs, {("pair0", "chin")}), "difficulty") == {
        "viewpoint_variation=2": (80.0, 5),
        "occlusion=0": (80.0, 5),
    }
    with pytest.raises(ProtocolError, match="viewpoint_variation"):
        values(faces(), found(faces(), set()), "difficulty")


def test_a_tag_of_keypoints_and_a_tag_that_is_not_there():
    pairs = faces(tags={"size": {"left_eye": "small", "right_eye": "small"}})
    assert values(pairs, found(pairs, set()), "size") == {"size=small": (100.0, 3)}
    with pytest.raises(UnknownNameError, match=r"'colour'; known: category, keypoint, .*difficulty, size"):
        values(pairs, found(pairs, set()), "colour")


def test_skipped_points_are_in_no_part():
    kept = [p for p in PREDICTIONS if p.keypoint != "k3"]
    matched = match_points(pair_columns(PAIRS), kept, Handling(missing="skip"))
    rows = breakdown(matched, "standard", "keypoint")
    assert not [row for row in rows if row.group.endswith("/k3")]
    assert breakdown(matched, "standard", "category") != breakdown(MATCHED, "standard", "category")


@pytest.mark.parametrize("protocol", NAMES)
def test_a_curve_goes_through_the_scores_and_its_area_is_the_limit_of_sums(protocol: str):
    alphas = POINT_PROTOCOLS[protocol].alphas
    scores = [100 * value.item() for value in score_matched(MATCHED, protocol).compute().values()]
    curve = pck_curve(MATCHED, protocol, alphas)
    assert [point.value for point in curve] == pytest.approx(scores)
    assert [(point.protocol, point.alpha) for point in curve] == [(protocol, alpha) for alpha in alphas]
    fine = pck_curve(MATCHED, protocol, (np.arange(4000) + 0.5) / 4000 * 0.2)
    middle = np.mean([point.value for point in fine])
    assert curve_area(MATCHED, protocol, 0.2) == pytest.approx(middle, abs=0.01)


def test_curves_by_hand():
    # a length of 160: errors of 0, 16 and 32 px are 0, 0.1 and 0.2 lengths
    pair = make_pair(
        keypoints=("a", "b", "c"), source_points=((0.0, 0.0),) * 3, target_points=((0.0, 0.0),) * 3
    )
    points = [
        PointPrediction("pair0", name, "", x, 0.0, 1.0) for name, x in zip("abc", (0, 16, 32), strict=True)
    ]
    matched = match_points(pair_columns([pair]), points)
    assert curve_area(matched, "standard", 0.2) == pytest.approx(100 * (1 + 0.5 + 0) / 3)
    assert curve_area(matched, "standard", 0.1) == pytest.approx(100 / 3)
    assert len(pck_curve(matched, "standard")) == 40
    with pytest.raises(ProtocolError, match="positive largest alpha"):
        curve_area(matched, "standard", 0.0)


@pytest.mark.parametrize("protocol", ["standard", "per_point", "per_category", "sd_dino"])
def test_an_interval_is_of_the_protocols_own_average(protocol: str):
    """Against drawing the pairs themselves anew and scoring each drawn data set by the slow reference."""
    worse = [dataclasses.replace(p, x=p.x + 25 * (n % 2)) for n, p in enumerate(PREDICTIONS)]
    a, b = (score_points(points, PAIRS, protocol) for points in (PREDICTIONS, worse))
    interval = compare_points(a, b, num_resamples=60, seed=3)
    differences = []
    for weights in np.random.default_rng(3).multinomial(60, np.full(60, 1 / 60), 60):
        drawn = [pair for pair, weight in zip(PAIRS, weights, strict=True) for _ in range(weight)]
        values = [
            protocol_reference.pck(protocol, drawn, points)["pck@0.10"] for points in (PREDICTIONS, worse)
        ]
        differences.append(values[0] - values[1])
    low, high = np.quantile(differences, [0.025, 0.975])
    assert (interval.low, interval.high) == pytest.approx((low, high))
    assert interval.difference > 0


@pytest.mark.parametrize("together", [True, False])
def test_intervals_of_scores_are_of_each_protocols_own_average(together: bool):
    """As above; all entries are drawn at once, which changes nothing."""
    worse = [dataclasses.replace(p, x=p.x + 25 * (n % 2)) for n, p in enumerate(PREDICTIONS)]
    wanted = [(points, name) for points in (PREDICTIONS, worse) for name in ("standard", "sd_dino", "dift")]
    entries = [(score_points(points, PAIRS, name), "pck@0.10") for points, name in wanted]
    groups = [entries] if together else [[entry] for entry in entries]
    found = []
    for group in groups:
        drawn = resample_scores(group, num_resamples=50, seed=3)
        found += [drawn.estimate(number) for number in range(len(group))]
    draws = np.random.default_rng(3).multinomial(60, np.full(60, 1 / 60), 50)
    for estimate, (points, name) in zip(found, wanted, strict=True):
        values = []
        for weights in draws:
            pairs = [pair for pair, weight in zip(PAIRS, weights, strict=True) for _ in range(weight)]
            values.append(protocol_reference.pck(name, pairs, points)["pck@0.10"])
        low, high = np.quantile(values, [0.025, 0.975])
        assert (estimate.low, estimate.high) == pytest.approx((low, high))
        assert estimate.value == pytest.approx(protocol_reference.pck(name, PAIRS, points)["pck@0.10"])
        assert estimate.times(100).high == pytest.approx(100 * high)


def test_scores_of_other_pairs_are_not_drawn_together():
    some = PAIRS[:30]
    with pytest.raises(ProtocolError, match="found 60 items under 'standard' and 30 under 'dift'"):
        resample_scores(
            [
                (score_points(PREDICTIONS, PAIRS), "pck@0.10"),
                (score_points(PREDICTIONS, some, "dift"), "pck@0.10"),
            ]
        )
    with pytest.raises(UnknownNameError, match=r"unknown metric 'pck@0.3'; known: pck@0\.10"):
        resample_scores([(score_points(PREDICTIONS, PAIRS), "pck@0.3")])


def test_several_seeds_are_compared_by_their_mean():
    noisy = [[dataclasses.replace(p, x=p.x + 9 * seed) for p in PREDICTIONS] for seed in (1, 2)]
    a = score_points(PREDICTIONS, PAIRS, "per_category")
    b = [score_points(points, PAIRS, "per_category") for points in noisy]
    mean = np.mean([m.compute()["pck@0.10"].item() for m in b])
    found = compare_points(a, b, num_resamples=10)
    assert found.difference == pytest.approx(a.compute()["pck@0.10"].item() - mean)
