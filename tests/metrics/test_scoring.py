import numpy as np
import pytest

from diffcorr.errors import ProtocolError
from diffcorr.metrics import score_masks, score_points
from diffcorr.types import Pair, PointPrediction


def make_pair(pair_id: str, bbox=(10.0, 20.0, 60.0, 40.0)) -> Pair:
    points = ((12.0, 22.0), (50.0, 30.0))
    return Pair(
        pair_id, "toy", "bird", "a", "b", ("beak", "tail"), points, points, bbox, bbox, (80, 60), (80, 60)
    )


def prediction(pair_id: str, keypoint: str, x: float, y: float) -> PointPrediction:
    return PointPrediction(pair_id, keypoint, f"toy/a/{keypoint}", x, y, 0.5)


def test_points_are_scored_by_the_longer_side_of_the_targets_box():
    # the longer side is 50, alpha 0.10 allows 5 px, alpha 0.05 allows 2.5 px
    predictions = [
        prediction("p", "tail", 50.0, 35.0),
        prediction("p", "beak", 12.0, 24.5),
        prediction("other", "beak", 0.0, 0.0),
    ]
    values = score_points(predictions, [make_pair("p")]).compute()
    assert {name: value.item() for name, value in values.items()} == {"pck@0.10": 1.0, "pck@0.05": 0.5}


def test_a_missing_point_or_an_empty_box_is_refused():
    predictions = [prediction("p", "beak", 12.0, 22.0)]
    with pytest.raises(ProtocolError, match="'p' has no prediction for tail"):
        score_points(predictions, [make_pair("p")])
    flat = make_pair("p", bbox=(5.0, 5.0, 5.0, 5.0))
    with pytest.raises(ProtocolError, match=r"'standard' needs a positive target_bbox length"):
        score_points([*predictions, prediction("p", "tail", 1.0, 1.0)], [flat])


class Toy:
    name, split, classes = "toy", "test", ("sky", "bird")

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int):
        label = np.array([[0, 1, 1]], dtype=np.int64)
        return {"image_id": f"i{index}", "image": np.zeros((1, 3, 3), np.uint8), "label": label, "tags": {}}


def test_masks_are_scored_by_image_id():
    masks = {"i1": np.array([[4, 7, 7]], dtype=np.uint16), "i0": np.array([[0, 0, 0]], dtype=np.uint16)}
    values = score_masks(masks, Toy()).compute()
    # i0: class 1 takes all three pixels; i1 is perfect: class 0 is 1 / 2, class 1 is 4 / 5
    assert values["miou"].item() == pytest.approx((1 / 2 + 4 / 5) / 2)
    assert values["accuracy"].item() == pytest.approx(5 / 6)
    with pytest.raises(ProtocolError, match="'i0' has no mask"):
        score_masks({"i1": masks["i1"]}, Toy())
    with pytest.raises(ProtocolError, match="one shape"):
        score_masks({**masks, "i0": np.zeros((2, 2), np.uint16)}, Toy())
