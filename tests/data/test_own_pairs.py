"""Pairs of one's own, from CSV and JSON."""

import json
from pathlib import Path
from typing import Any

import pytest

from diffcorr.config import compose, instantiate
from diffcorr.data.own_pairs import OwnPairs
from diffcorr.errors import DataError, ImageError, UnknownNameError
from diffcorr.types import PairDataset
from tests.helpers.make_datasets import own_pairs, picture, write_csv

HEAD = ["source", "target", "source_x", "source_y", "target_x", "target_y"]


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_pairs_by_hand(tmp_path: Path, kind: str) -> None:
    folder = own_pairs(tmp_path, kind)
    data: Any = instantiate(compose("eval", ["data=own_pairs", f"data.root={folder}"]).data)
    assert isinstance(data, PairDataset)
    assert (data.name, data.split) == ("mine", "test")
    first, second = data.pairs
    assert (first.category, second.category) == ("cat", "dog")
    assert first.keypoints == ("ear@5,6", "tail@30,20")
    assert (first.source_points, first.target_points) == (((5, 6), (30, 20)), ((4, 5), (11, 28)))
    assert (first.source_bbox, first.target_bbox) == ((1, 2, 30, 20), (3, 4, 13, 29))
    # upright, though stored lying
    assert (first.source_size, first.target_size) == ((31, 21), (20, 30))
    assert data.image(first.target_id).shape == (30, 20, 3)
    # one point and no box: the whole picture
    assert second.keypoints == ("4.5,5.5",)
    assert (second.source_bbox, second.target_bbox) == ((0, 0, 20, 30), (0, 0, 31, 21))
    assert (second.source_id, second.target_id) == (first.target_id, first.source_id)


def test_both_kinds_of_file_give_the_same_pairs(tmp_path: Path) -> None:
    from_csv = OwnPairs(own_pairs(tmp_path / "a", "csv")).pairs
    from_json = OwnPairs(own_pairs(tmp_path / "b", "json")).pairs
    assert from_csv == from_json


def test_ids_follow_content_not_order(tmp_path: Path) -> None:
    folder = own_pairs(tmp_path, "json")
    before = OwnPairs(folder).pairs
    listed = json.loads((folder / "pairs.json").read_text())
    (folder / "pairs.json").write_text(json.dumps({"pairs": listed[::-1]}))
    assert OwnPairs(folder).pairs == before[::-1]
    # another picture of that name, or a point moved, must not find what was fitted before
    picture(folder / "a.jpg", (31, 21), "RGB")
    after = OwnPairs(folder).pairs[::-1]
    assert after[0].queries()[0].id != before[0].queries()[0].id
    assert after[1].queries()[0].id == before[1].queries()[0].id
    listed[1]["source_points"] = [[4.5, 6.5]]
    (folder / "pairs.json").write_text(json.dumps(listed))
    assert OwnPairs(folder).pairs[1].queries()[0].id != before[1].queries()[0].id
    assert OwnPairs(folder).pairs[1].pair_id != after[1].pair_id


def test_splits_of_the_file(tmp_path: Path) -> None:
    folder = own_pairs(tmp_path)
    rows = [["a.jpg", "sub/b.jpg", 1, 2, 3, 4, split] for split in ("val", "test")]
    write_csv(folder / "pairs.csv", [[*HEAD, "split"], *rows])
    assert len(OwnPairs(folder, "val").pairs) == 1
    assert OwnPairs.available(folder) == ["test", "val"]
    with pytest.raises(UnknownNameError, match="known: test, val"):
        OwnPairs(folder, "train")


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([["source", "target"], ["a.jpg", "b.jpg"]], "no source_x"),
        ([HEAD, ["a.jpg", "sub/b.jpg", 1, 2, 3]], "6 cells in line 2"),
        ([HEAD, ["a.jpg", "sub/b.jpg", 1, 2, 3, "nan"]], "finite numbers as target_x and target_y in line 2"),
        ([HEAD, ["", "sub/b.jpg", 1, 2, 3, 4]], "a source and a target in line 2"),
        ([HEAD, ["../a.jpg", "sub/b.jpg", 1, 2, 3, 4]], "pictures inside of"),
        ([HEAD, ["/etc/passwd", "sub/b.jpg", 1, 2, 3, 4]], "pictures inside of"),
        ([HEAD, *[["a.jpg", "sub/b.jpg", 1, 2, 3, 4]] * 2], "each source point of line 2"),
        (
            [[*HEAD, "target_box"], ["a.jpg", "sub/b.jpg", 1, 2, 3, 4, "1 2 3"]],
            "4 finite numbers as target_box",
        ),
        ([], "found none"),
    ],
)
def test_a_wrong_csv_is_named_in_one_line(tmp_path: Path, rows: list, told: str) -> None:
    folder = own_pairs(tmp_path)
    write_csv(folder / "pairs.csv", rows)
    with pytest.raises(DataError, match=told) as caught:
        OwnPairs(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("3", "a list of pairs"),
        ("[{}]", "source, target, source_points"),
        ('[{"source": "a.jpg"', "cut off"),
        (
            '[{"source": "a.jpg", "target": "a.jpg", "source_points": [[1, 2]], '
            '"target_points": [[1, 2], [3, 4]]}]',
            "1, 2",
        ),
        (
            '[{"source": "a.jpg", "target": "a.jpg", "source_points": [[1]], "target_points": [[1, 2]]}]',
            "2 finite",
        ),
        (
            '[{"source": "a.jpg", "target": "a.jpg", "source_points": 5, "target_points": [[1, 2]]}]',
            "as a list",
        ),
    ],
)
def test_a_wrong_json_is_named_in_one_line(tmp_path: Path, content: str, told: str) -> None:
    folder = own_pairs(tmp_path, "json")
    (folder / "pairs.json").write_text(content)
    with pytest.raises(DataError, match=told) as caught:
        OwnPairs(folder)
    assert "\n" not in str(caught.value)


def test_missing_lists_and_pictures(tmp_path: Path) -> None:
    folder = own_pairs(tmp_path)
    own_pairs(tmp_path, "json")
    with pytest.raises(DataError, match=r"found pairs.csv and pairs.json; set data.file"):
        OwnPairs(folder)
    assert len(OwnPairs(folder, file="pairs.json").pairs) == 2
    with pytest.raises(DataError, match="found none"):
        OwnPairs(folder / "sub")
    with pytest.raises(DataError, match="found none"):
        OwnPairs(tmp_path / "nowhere")
    (folder / "a.jpg").unlink()
    with pytest.raises(ImageError, match=r"a\.jpg"):
        OwnPairs(folder, file="pairs.json")
