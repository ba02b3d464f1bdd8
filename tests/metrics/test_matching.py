"""What becomes of predictions that do not fit the pairs: refused by default, counted where handled."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest

from diffcorr.errors import ProtocolError, UnknownNameError
from diffcorr.metrics import Handling, compare_points, match_points, match_table, pair_columns, score_matched
from diffcorr.types import PointPrediction
from tests.helpers.protocol_reference import make_pair, random_pairs

# 160 px long box: 16 px are right
PAIRS = [make_pair(0), make_pair(1, keypoints=("tail", "beak"))]
RIGHT = [
    PointPrediction(pair.pair_id, name, "", x, y, 1.0)
    for pair in PAIRS
    for name, (x, y) in zip(pair.keypoints, pair.target_points, strict=True)
]
COLUMNS = pair_columns(PAIRS)
NAN = float("nan")


def moved(n: int, x: float) -> PointPrediction:
    return dataclasses.replace(RIGHT[n], x=x)


def score(predictions: list[PointPrediction], protocol: str = "per_point", **handling: str) -> tuple:
    matched = match_points(COLUMNS, predictions, Handling(**handling))  # type: ignore[arg-type]
    metric = score_matched(matched, protocol)
    counts = {key: count for key, count in matched.counts.items() if count}
    return round(metric.compute()["pck@0.10"].item(), 6), int(metric.num_points().sum()), counts


def test_points_find_their_keypoint_whatever_the_order():
    pairs, predictions = random_pairs(40)
    matched = match_points(pair_columns(pairs), predictions)
    found = {(p.pair_id, p.keypoint): (p.x, p.y) for p in predictions}
    expected = [found[pair.pair_id, name] for pair in pairs for name in pair.keypoints]
    assert np.array_equal(matched.points, np.array(expected))
    assert matched.scored.all()
    assert set(matched.counts.values()) == {0}


def test_a_table_of_a_store_may_have_dictionaries_chunks_and_other_columns():
    rows = {
        "pair_id": [p.pair_id for p in RIGHT],
        "keypoint": [p.keypoint for p in RIGHT],
        "x": [p.x for p in RIGHT],
        "y": [p.y for p in RIGHT],
        "method": ["dift"] * 4,
    }
    whole = pa.table(rows)
    whole = whole.set_column(0, "pair_id", whole["pair_id"].dictionary_encode())
    chunked = pa.concat_tables([whole.slice(0, 1), whole.slice(1)])
    assert np.array_equal(match_table(COLUMNS, chunked).points, COLUMNS.target)


@pytest.mark.parametrize(
    ("predictions", "told"),
    [
        (RIGHT[:3], r"'pair1' has no prediction for beak; predict it before scoring \(1 of 4"),
        ([], r"'pair0' has no prediction for beak, tail"),
        ([*RIGHT, dataclasses.replace(RIGHT[0], pair_id="pear")], "1 predictions that 2 pairs .* 'pear'"),
        ([*RIGHT, dataclasses.replace(RIGHT[0], keypoint="ear")], "keypoint 'ear'; score the data set"),
        (
            [*RIGHT, RIGHT[2]],
            "beyond the first of their keypoint, the first of pair 'pair1', keypoint 'tail'",
        ),
        ([*RIGHT[:3], moved(3, NAN)], "1 predictions that are not finite, .* 'pair1', keypoint 'beak'"),
        ([*RIGHT[:3], moved(3, float("-inf"))], "not finite"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(predictions: list[PointPrediction], told: str):
    with pytest.raises(ProtocolError, match=told) as error:
        match_points(COLUMNS, predictions)
    assert "\n" not in str(error.value)


def test_a_choice_is_made_and_counted():
    wrong = [*RIGHT[:3], moved(3, 900.0)]
    assert score(wrong) == (0.75, 4, {})
    assert score(RIGHT[:3], missing="wrong") == (0.75, 4, {"missing": 1})
    assert score(RIGHT[:3], missing="skip") == (1.0, 3, {"missing": 1})
    assert score([*RIGHT[:3], moved(3, NAN)], nan="wrong") == (0.75, 4, {"nan": 1})
    assert score([*RIGHT[:3], moved(3, NAN)], nan="skip") == (1.0, 3, {"nan": 1})
    stranger = dataclasses.replace(RIGHT[0], pair_id="pear")
    assert score([stranger, *RIGHT], unknown="skip") == (1.0, 4, {"unknown": 1})
    twice = [*RIGHT[:3], moved(3, 900.0), RIGHT[3]]
    assert score(twice, duplicates="first") == (0.75, 4, {"duplicates": 1})
    assert score(twice, duplicates="last") == (1.0, 4, {"duplicates": 1})


def test_of_duplicates_the_chosen_one_decides_whether_it_is_finite():
    twice = [*RIGHT, moved(3, NAN)]
    assert score(twice, duplicates="first") == (1.0, 4, {"duplicates": 1})
    with pytest.raises(ProtocolError, match="not finite"):
        score(twice, duplicates="last")


def test_a_pair_without_a_scored_point_is_no_pair():
    # pair 0: 1 of 2 right, pair 1: nothing predicted
    half = [RIGHT[0], moved(1, 900.0)]
    assert score(half, "standard", missing="skip") == (0.5, 2, {"missing": 2})
    assert score(half, "standard", missing="wrong") == (0.25, 4, {"missing": 2})
    with pytest.raises(ProtocolError, match="nothing is left to score"):
        score([], missing="skip")


def test_no_choice_is_silent_about_what_it_may_be():
    with pytest.raises(UnknownNameError, match="missing predictions 'ignore'; known: error, skip, wrong"):
        Handling(missing="ignore")  # type: ignore[arg-type]


def test_methods_of_which_other_points_were_left_out_are_not_compared():
    everything, skipped, wrong = (
        score_matched(match_points(COLUMNS, points, Handling(missing=how)))  # type: ignore[arg-type]
        for points, how in ((RIGHT, "error"), (RIGHT[:3], "skip"), (RIGHT[:3], "wrong"))
    )
    with pytest.raises(ProtocolError, match="on the same points under 'standard'"):
        compare_points(everything, skipped)
    assert compare_points(everything, wrong, num_resamples=10).difference == 0.25
