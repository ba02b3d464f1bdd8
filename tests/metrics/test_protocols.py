"""Each preset at the place where it parts from the others, worked out by hand.

The pair of the hand cases: target image 1024 x 256, its box 100 x 160, source image 256 x 512, its box
128 x 32, keypoints of the target at (100, 50) and (40, 150). In the square of 512 a target pixel is half
as wide and twice as high, and the source's box is 256 x 32.
"""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from diffcorr.config import instantiate, load_option, option_names
from diffcorr.data.geometry import Letterbox, Resize
from diffcorr.errors import ProtocolError, UnknownNameError
from diffcorr.metrics import MASK_PROTOCOLS, POINT_PROTOCOLS, PointProtocol, pair_columns, score_points
from diffcorr.metrics.thresholds import SPACES, THRESHOLDS
from diffcorr.types import Pair, PointPrediction
from tests.helpers.protocol_reference import PRESETS, make_pair

LENGTHS = {
    "standard": 160,
    "per_point": 160,
    "per_category": 160,
    "dift": 160,
    "sd_dino": 160 * 840 / 1024,
    "geoaware": 160 * 840 / 1024,
    "legacy_hedlin_spair": 256,
    "legacy_hedlin_willow": 150 * 2 + 1,
    "legacy_hedlin_cub": 160 / 2,
    "pf_pascal": 1024,
}


def found_off_by(pair: Pair, *offsets: tuple[float, float]) -> list[PointPrediction]:
    return [
        PointPrediction(pair.pair_id, name, "", x + dx, y + dy, 1.0)
        for name, (x, y), (dx, dy) in zip(pair.keypoints, pair.target_points, offsets, strict=True)
    ]


def score(protocol: str, pair: Pair, *offsets: tuple[float, float]) -> float:
    return score_points(found_off_by(pair, *offsets), [pair], protocol).compute()["pck@0.10"].item()


@pytest.mark.parametrize(("name", "length"), LENGTHS.items())
def test_the_length_that_alpha_multiplies(name: str, length: float):
    assert POINT_PROTOCOLS[name].threshold_length(make_pair()) == pytest.approx(length, rel=1e-12)


def test_standard_is_what_it_was():
    assert POINT_PROTOCOLS["standard"] == PointProtocol(
        "standard", "target_bbox", "image", (0.10, 0.05), inclusive=True, space="original"
    )
    # 16 px to any side are right, 16.01 px are wrong
    pair = make_pair()
    assert [score("standard", pair, offset, (99, 99)) for offset in ((16, 0), (0, -16), (16.01, 0))] == [
        0.5,
        0.5,
        0.0,
    ]


def test_below_the_threshold_and_at_it():
    # box and image of 1024: 0.1 x 1024 px, and 0.1 x 840 in the letterbox, where 840 / 1024 is exact
    pair = make_pair(target_bbox=(0.0, 0.0, 1024.0, 10.0))
    at, below = (0.1 * 1024, 0.0), (0.1 * 1024 - 1e-6, 0.0)
    for name in ("standard", "per_point", "per_category", "dift", "pf_pascal"):
        assert score(name, pair, at, below) == 1.0
    pair = make_pair(target_bbox=(0.0, 0.0, 840.0, 10.0), target_size=(840, 256))
    at, below = (84.0, 0.0), (84.0 - 1e-6, 0.0)
    for name, value in {"standard": 1.0, "dift": 1.0, "sd_dino": 0.5, "geoaware": 0.5}.items():
        assert score(name, pair, at, below) == value


def test_a_letterbox_changes_no_decision_but_those_at_the_threshold():
    # both the error and the box shrink by 840 / 1024
    pair = make_pair()
    for name in ("sd_dino", "geoaware"):
        assert (
            score(name, pair, (15.99, 0), (0, 16.01))
            == score("standard", pair, (15.99, 0), (0, 16.01))
            == 0.5
        )


def test_a_stretched_square_weighs_height_more():
    # 25.6 stretched px: 51.2 px along x, 12.8 px along y; the longer side of the source's box, stretched
    pair = make_pair()
    assert score("legacy_hedlin_spair", pair, (51, 0), (0, 13)) == 0.5
    assert score("legacy_hedlin_spair", pair, (0, 12.7), (51.3, 0)) == 0.5
    assert score("standard", pair, (51, 0), (0, 13)) == 0.5  # the other one of the two
    half_axes = POINT_PROTOCOLS["legacy_hedlin_spair"].radii(pair, 0.1)
    assert half_axes == pytest.approx((51.2, 12.8))


def test_hedlins_spair_does_not_see_the_targets_box():
    tiny = make_pair(target_bbox=(0.0, 0.0, 1.0, 1.0))
    assert score("legacy_hedlin_spair", tiny, (51, 0), (0, 12)) == 1.0
    assert score("standard", tiny, (51, 0), (0, 12)) == 0.0


def test_hedlins_willow_takes_the_padding_for_a_keypoint():
    # extents 60 x 100 px, stretched 30 x 200; the largest coordinate is 150 px, stretched 300
    pair = make_pair()
    columns = pair_columns([pair])
    space = SPACES["stretched_512"]
    assert THRESHOLDS["keypoint_extent"](columns, space).tolist() == [200]
    assert THRESHOLDS["keypoint_extent"](columns, SPACES["original"]).tolist() == [100]
    assert THRESHOLDS["padded_extent"](columns, space).tolist() == [301]
    # 30.1 stretched px are 15.05 px along y; right where the extent itself would allow 10
    assert score("legacy_hedlin_willow", pair, (0, 15), (0, 15.1)) == 0.5
    # moved within the image, the keypoints' extent stays and the padded one grows
    moved = make_pair(target_points=((100.0, 150.0), (40.0, 250.0)))
    assert POINT_PROTOCOLS["legacy_hedlin_willow"].threshold_length(moved) == 501


def test_hedlins_cub_scales_the_longer_side_by_x_whichever_it_is():
    # the box is 160 high; by its own direction it would be 320 stretched px, by x it is 80
    pair = make_pair()
    assert THRESHOLDS["target_bbox"](pair_columns([pair]), SPACES["stretched_512"]).tolist() == [320]
    assert score("legacy_hedlin_cub", pair, (16, 0), (0, 4.01)) == 0.5
    assert score("legacy_hedlin_cub", pair, (0, 4), (16.1, 0)) == 0.5


def test_pf_pascal_measures_by_the_image():
    pair = make_pair(target_bbox=(0.0, 0.0, 1.0, 1.0))
    values = score_points(found_off_by(pair, (102, 0), (150, 0)), [pair], "pf_pascal").compute()
    assert {k: v.item() for k, v in values.items()} == {"pck@0.10": 0.5, "pck@0.05": 0.0, "pck@0.15": 1.0}


def averages_case() -> tuple[list[Pair], list[PointPrediction]]:
    """Bird: one pair with 1 of 1 right, one with 0 of 3. Cat: one pair with 2 of 2 right."""
    names = ("a", "b", "c")
    pairs, predictions = [], []
    for number, (category, right, wrong) in enumerate((("bird", 1, 0), ("bird", 0, 3), ("cat", 2, 0))):
        count = right + wrong
        points = tuple((10.0 * n, 20.0) for n in range(count))
        pair = make_pair(
            number, category=category, keypoints=names[:count], target_points=points, source_points=points
        )
        pairs.append(pair)
        predictions += found_off_by(pair, *[(0.0, 0.0)] * right, *[(500.0, 0.0)] * wrong)
    return pairs, predictions


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("standard", (1 + 0 + 1) / 3),
        ("geoaware", (1 + 0 + 1) / 3),
        ("per_point", 3 / 6),
        ("dift", 3 / 6),
        ("per_category", (1 / 4 + 1) / 2),
        ("sd_dino", (1 / 4 + 1) / 2),
    ],
)
def test_averages(name: str, value: float):
    pairs, predictions = averages_case()
    assert score_points(predictions, pairs, name).compute()["pck@0.10"].item() == pytest.approx(value)


def test_a_mean_over_categories_says_which_score_it_is_of():
    pairs, predictions = averages_case()
    of_images = dataclasses.replace(POINT_PROTOCOLS["per_category"], name="mine", average="category_image")
    value = score_points(predictions, pairs, of_images).compute()["pck@0.10"].item()
    assert value == pytest.approx(((1 + 0) / 2 + 1) / 2)


def test_alphas():
    assert {name: p.alphas for name, p in POINT_PROTOCOLS.items()} == {n: v[3] for n, v in PRESETS.items()}


def test_spaces_are_those_of_the_package_s_own_resizes():
    sizes = [(1024, 256), (300, 700), (840, 840), (333, 500)]
    points = torch.rand(5, 2, dtype=torch.float64)
    for size in sizes:
        array = np.array([size], dtype=np.float64)
        for space, geometry in (
            ("stretched_512", Resize(size, (512, 512))),
            ("letterbox_840", Letterbox(size, (840, 840))),
        ):
            own = points * torch.tensor(size)
            mapped = own.numpy() * SPACES[space].scale(array) + SPACES[space].offset(array)
            # the picture in a letterbox has whole pixels, so its scale is off by less than half of one
            assert np.abs(mapped - geometry.forward(own).numpy()).max() < 0.5 + 1e-9


def test_every_preset_has_its_file_and_its_chapter():
    assert set(option_names("protocol")) == {*POINT_PROTOCOLS, *MASK_PROTOCOLS}
    for name, protocol in POINT_PROTOCOLS.items():
        assert instantiate(load_option("protocol", name)) == protocol
    chapters = (Path(__file__).parents[2] / "docs" / "protocols.md").read_text(encoding="utf-8")
    for name in (*POINT_PROTOCOLS, *MASK_PROTOCOLS):
        assert f"\n### {name}\n" in chapters


def test_a_protocol_of_ones_own_from_a_configuration():
    mine = instantiate(
        {
            "_target_": "diffcorr.metrics.PointProtocol",
            "name": "mine",
            "threshold": "keypoint_extent",
            "average": "category_image",
            "alphas": [0.2, 0.005],
            "space": "stretched_512",
        }
    )
    assert mine.alphas == (0.2, 0.005)
    pairs, predictions = averages_case()
    assert set(score_points(predictions[-2:], pairs[-1:], mine).compute()) == {"pck@0.20", "pck@0.005"}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"threshold": "bbox"}, "unknown threshold of a point protocol 'bbox'; known: target_bbox"),
        ({"average": "pair"}, "unknown average of a point protocol 'pair'; known: image, point"),
        ({"space": "512"}, "unknown space of a point protocol '512'; known: original"),
        ({"alphas": ()}, "positive, distinct alphas"),
        ({"alphas": (0.1, 0.1)}, "positive, distinct alphas"),
        ({"alphas": (0.1, -0.1)}, "positive, distinct alphas"),
        ({"alphas": (float("nan"),)}, "positive, distinct alphas"),
        ({"name": ""}, "a protocol with a name"),
    ],
)
def test_a_protocol_that_makes_no_sense_is_refused(changes: dict, told: str):
    with pytest.raises((UnknownNameError, ProtocolError), match=told) as error:
        PointProtocol(**({"name": "mine"} | changes))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "changes", "told"),
    [
        (
            "standard",
            {"target_bbox": (5.0, 5.0, 5.0, 5.0)},
            "positive target_bbox length, pair 'pair0' has 0",
        ),
        ("standard", {"target_bbox": (5.0, 5.0, float("nan"), 9.0)}, "pair 'pair0' has"),
        ("legacy_hedlin_spair", {"source_bbox": (0.0,) * 4}, "positive source_bbox length"),
        ("legacy_hedlin_spair", {"source_size": (0, 0)}, "positive source_bbox length"),
        ("legacy_hedlin_spair", {"target_size": (0, 0)}, "needs the size of each target image, pair 'pair0'"),
        ("geoaware", {"target_size": (0, 0)}, "positive target_bbox length"),
        ("pf_pascal", {"target_size": (0, 0)}, "positive image_side length"),
    ],
)
def test_a_pair_that_cannot_be_measured_is_named(name: str, changes: dict, told: str):
    pair = make_pair(**changes)
    with pytest.raises(ProtocolError, match=told) as error:
        score(name, pair, (0, 0), (0, 0))
    assert "\n" not in str(error.value)


def test_pairs_that_would_count_twice_or_not_at_all_are_refused():
    for pairs, told in (
        ([], "one or more pairs"),
        ([make_pair(), make_pair()], "'pair0' twice"),
        ([make_pair(keypoints=(), target_points=())], "'pair0'"),
        ([make_pair(keypoints=("beak", "beak"))], "every keypoint once"),
        ([make_pair(target_points=((1.0, 2.0),))], "2 keypoints and 1 points"),
    ):
        with pytest.raises(ProtocolError, match=told):
            pair_columns(pairs)
