"""PF-Willow and PF-Pascal in their layouts on disk, against values worked out by hand."""

from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from diffcorr.data.pf_pascal import PFPascal
from diffcorr.data.pf_willow import PFWillow
from diffcorr.errors import DataError, UnknownNameError
from diffcorr.types import PairDataset
from tests.helpers.make_datasets import WILLOW_HEADER, pf_pascal, pf_willow, willow_row, write_csv


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("from_parent", [False, True])
def test_willow(tmp_path: Path, nested: bool, from_parent: bool) -> None:
    folder = pf_willow(tmp_path, nested)
    data = PFWillow(tmp_path if from_parent else folder)
    assert isinstance(data, PairDataset)
    assert [p.pair_id for p in data.pairs] == ["car(S)-60_0000-60_0001", "car(S)-60_0001-60_0000"]
    first, second = data.pairs
    assert (first.category, first.source_id, first.target_id) == (
        "car(S)",
        "car(S)/60_0000",
        "car(S)/60_0001",
    )
    assert first.keypoints == ("0", "1", "2")
    assert first.source_points == ((1.5, 2.5), (40, 20), (8, 9))
    assert first.target_points == ((3, 4), (5, 40.5), (23, 9))
    # the extent of the keypoints; with the padding as a minimum it would begin at -1
    assert first.target_bbox == (3, 4, 23, 40.5)
    assert first.source_bbox == (1.5, 2.5, 40, 20)
    assert (first.source_size, first.target_size) == ((41, 23), (24, 42))
    assert second.keypoints == ("0", "1")
    assert second.target_bbox == (1.5, 2.5, 40, 20)
    assert data.image("car(S)/60_0001").shape == (42, 24, 3)
    assert dict(data.skipped) == {"no keypoint visible in both images": 1, "target without extent": 1}


def test_willow_keeps_queries_apart_whose_places_differ(tmp_path: Path) -> None:
    folder = pf_willow(tmp_path)
    a, b = "x/car(S)/60_0000.png", "x/car(S)/60_0001.png"
    rows = [willow_row(a, b, [[x, 2], [9, 9]], [[3, 4], [5, 6]]) for x in (1, 2)]
    write_csv(folder / "test_pairs.csv", [WILLOW_HEADER, *rows])
    pairs = PFWillow(folder).pairs
    assert [p.pair_id for p in pairs] == ["car(S)-60_0000-60_0001", "car(S)-60_0000-60_0001-2"]
    assert [p.keypoints for p in pairs] == [("0", "1"), ("0@2,2", "1")]
    assert pairs[1].source_points == ((2, 2), (9, 9))


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([WILLOW_HEADER[:-1]], "42 columns"),
        (
            [WILLOW_HEADER, willow_row("p/c/a.png", "p/c/b.png", [[float("nan"), 1]], [[1, 1]])],
            "finite numbers",
        ),
        ([WILLOW_HEADER, willow_row("p/c/a.png", "p/c/b.png", [["", 1]], [[1, 1]])], "line 2"),
        ([WILLOW_HEADER, willow_row("a.png", "p/c/b.png", [[1, 1]], [[1, 1]])], "<category>/<file>"),
        ([WILLOW_HEADER, willow_row("p/../a.png", "p/c/b.png", [[1, 1]], [[1, 1]])], "<category>/<file>"),
    ],
)
def test_a_wrong_willow_list_is_named_in_one_line(tmp_path: Path, rows: list, told: str) -> None:
    folder = pf_willow(tmp_path)
    write_csv(folder / "test_pairs.csv", rows)
    with pytest.raises(DataError, match=told) as caught:
        PFWillow(folder)
    assert "test_pairs.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_willow_has_one_split_and_needs_its_list(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="known: test"):
        PFWillow(pf_willow(tmp_path), "val")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"expected test_pairs.csv of PF-Willow"):
        PFWillow(tmp_path / "empty")


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("from_parent", [False, True])
def test_pascal(tmp_path: Path, flat: bool, from_parent: bool) -> None:
    folder = pf_pascal(tmp_path, flat)
    data = PFPascal(tmp_path if from_parent else folder)
    assert isinstance(data, PairDataset)
    (pair,) = data.pairs
    assert (pair.pair_id, pair.category) == ("cat-2008_1-2008_2", "cat")
    assert (pair.source_id, pair.target_id) == ("cat/2008_1", "cat/2008_2")
    assert pair.keypoints == ("0", "2")
    assert pair.source_points == ((1.25, 2), (50, 36))
    assert pair.target_points == ((10, 20), (30, 45))
    assert (pair.source_bbox, pair.target_bbox) == ((1, 2, 50, 37), (5, 6, 35, 50))
    assert (pair.source_size, pair.target_size) == ((51, 37), (38, 52))
    assert data.image(pair.target_id).shape == (52, 38, 3)
    assert dict(data.skipped) == {"no keypoint visible in both images": 1}
    trn = PFPascal(folder, "trn")
    assert len(trn.pairs) == 1
    assert dict(trn.skipped) == {"mirrored copy for training": 1}
    assert PFPascal.available(tmp_path) == ["trn", "test"]


def test_wrong_pascal_data_are_named_in_one_line(tmp_path: Path) -> None:
    folder = pf_pascal(tmp_path)

    def told(split: str = "test") -> str:
        with pytest.raises(DataError) as caught:
            PFPascal(folder, split)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "val_pairs.csv" in told("val")
    mat = folder / "PF-dataset-PASCAL/Annotations/cat/2008_2.mat"
    whole = mat.read_bytes()
    for broken in (b"", whole[:150], b"no matlab"):
        mat.write_bytes(broken)
        assert "2008_2.mat" in told()
    savemat(mat, {"kps": np.zeros((3, 2))})
    assert "no 'bbox'" in told()
    savemat(mat, {"kps": np.zeros((3, 3)), "bbox": np.ones((1, 4))})
    assert "kps as (n, 2)" in told()
    savemat(mat, {"kps": np.zeros((3, 2)), "bbox": np.full((1, 4), np.nan)})
    assert "4 finite numbers as bbox" in told()
    mat.unlink()
    assert "found no file at" in told()
    head = ["source_image", "target_image", "class"]
    write_csv(folder / "test_pairs.csv", [head, ["x/2008_1.jpg", "x/2008_2.jpg", 21]])
    assert "a class from 1 to 20" in told()
    write_csv(folder / "test_pairs.csv", [head, ["x/2008_1.jpg", "x/2008_2.jpg"]])
    assert "3 cells in line 2" in told()
    write_csv(folder / "test_pairs.csv", [["a", "b", "class"]])
    assert "no source_image, target_image" in told()
    (folder / "test_pairs.csv").write_bytes(b"\xff\xfe\x00")
    assert "CSV" in told()
