"""SPair-71k in its layout on disk, against the JSON files read in the obvious way."""

import json
from pathlib import Path

import pytest
from PIL import Image, ImageOps

from diffcorr.data.spair import SPair
from diffcorr.errors import DataError, UnknownNameError
from diffcorr.types import PairDataset
from tests.helpers.make_datasets import FLAGS, spair, spair_pair


def test_pairs_are_what_the_annotations_say(tmp_path: Path) -> None:
    folder = spair(tmp_path)
    data = SPair(folder)
    assert isinstance(data, PairDataset)
    names = (folder / "Layout/large/test.txt").read_text().split()
    assert [pair.pair_id for pair in data.pairs] == names
    for pair in data.pairs:
        record = json.loads((folder / f"PairAnnotation/test/{pair.pair_id}.json").read_text())
        assert pair.category == record["category"]
        assert list(pair.keypoints) == record["kps_ids"]
        assert [list(p) for p in pair.source_points] == record["src_kps"]
        assert [list(p) for p in pair.target_points] == record["trg_kps"]
        assert list(pair.source_bbox) == record["src_bndbox"]
        assert list(pair.target_bbox) == record["trg_bndbox"]
        assert list(pair.source_size) == record["src_imsize"][:2]
        assert pair.tags == FLAGS
        assert pair.source_id == f"{record['category']}/{record['src_imname'][:-4]}"
        for image_id, size in ((pair.source_id, pair.source_size), (pair.target_id, pair.target_size)):
            image = data.image(image_id)
            assert image.shape == (size[1], size[0], 3)
            with Image.open(folder / "JPEGImages" / f"{image_id}.jpg") as stored:
                upright = ImageOps.exif_transpose(stored)
                assert upright.size == size
    # one query wherever it is used: one point each
    places = {(q.id, q.point) for pair in data.pairs for q in pair.queries()}
    assert len({query for query, _ in places}) == len(places) == 12


def test_root_may_be_the_parent_and_lists_may_be_absent(tmp_path: Path) -> None:
    ids = [pair.pair_id for pair in SPair(spair(tmp_path / "a")).pairs]
    assert [pair.pair_id for pair in SPair(tmp_path / "a").pairs] == ids
    spair(tmp_path / "b", layout=False)
    assert [pair.pair_id for pair in SPair(tmp_path / "b").pairs] == ids


def test_layouts_splits_categories_and_numbers(tmp_path: Path) -> None:
    spair(tmp_path)
    everything = [pair.pair_id for pair in SPair(tmp_path).pairs]
    assert [pair.pair_id for pair in SPair(tmp_path, layout="small").pairs] == everything[1:3]
    assert [pair.pair_id[:6] for pair in SPair(tmp_path, "trn").pairs] == ["000009"]
    assert {pair.category for pair in SPair(tmp_path, categories=["dog"]).pairs} == {"dog"}
    # in turn: the first cat and the first dog; in the order of the list
    assert [pair.pair_id[:6] for pair in SPair(tmp_path, num_pairs=2).pairs] == ["000001", "000003"]
    assert [pair.pair_id[:6] for pair in SPair(tmp_path, num_pairs=3).pairs] == ["000001", "000002", "000003"]
    assert len(SPair(tmp_path, num_pairs=99).pairs) == 4


def test_what_a_sparse_annotation_leaves_open_comes_from_file_names_and_images(tmp_path: Path) -> None:
    folder = spair(tmp_path)
    absent = dict.fromkeys(
        [*FLAGS, "src_imname", "trg_imname", "src_imsize", "trg_imsize", "kps_ids", "category"]
    )
    spair_pair(folder, 1, "cat", ("a", "b"), **{k: v for k, v in absent.items() if k != "category"})
    pair = SPair(folder).pairs[0]
    assert (pair.source_id, pair.target_id, pair.category) == ("cat/a", "cat/b", "cat")
    assert (pair.source_size, pair.target_size) == ((31, 21), (20, 30))
    assert pair.keypoints == ("5_6", "30_20", "7_8")
    assert pair.tags == {}


def test_padding_is_no_keypoint(tmp_path: Path) -> None:
    folder = spair(tmp_path)
    spair_pair(folder, 1, "cat", ("a", "b"), trg_kps=[[4, 5], [-1, -1], [9, 9]])
    spair_pair(folder, 3, "dog", ("a", "b"), trg_kps=[[-1, -1]] * 3)
    data = SPair(folder)
    assert data.pairs[0].keypoints == ("0", "11")
    assert data.pairs[0].source_points == ((5, 6), (7, 8))
    assert len(data.pairs) == 3
    assert dict(data.skipped) == {"no keypoint visible in both images": 1}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"trg_kps": [[4, 5], [float("nan"), 28], [9, 9]]}, "2 finite numbers as a keypoint of trg_kps"),
        ({"trg_kps": [[4, 5]]}, "as many keypoints as ids"),
        ({"kps_ids": ["0", "0", "1"]}, "as many keypoints as ids"),
        ({"trg_bndbox": None}, "trg_bndbox in"),
        ({"trg_bndbox": [3, 4, 3, 29]}, "x_min < x_max"),
        ({"src_kps": "none"}, "expected a list as src_kps"),
    ],
)
def test_a_wrong_annotation_is_named_in_one_line(tmp_path: Path, changes: dict, told: str) -> None:
    folder = spair(tmp_path)
    path = spair_pair(folder, 3, "dog", ("a", "b"), **changes)
    with pytest.raises(DataError, match=told) as caught:
        SPair(folder)
    assert path.name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_mistakes_are_one_line(tmp_path: Path) -> None:
    folder = spair(tmp_path)
    with pytest.raises(DataError, match="no such folder"):
        SPair(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="PairAnnotation/test and JPEGImages") as caught:
        SPair(tmp_path / "empty")
    assert "SPair-71k" in str(caught.value)
    with pytest.raises(UnknownNameError, match="known: trn, val, test"):
        SPair(folder, "tset")
    with pytest.raises(UnknownNameError, match="known: cat, dog"):
        SPair(folder, categories=["cow"])
    with pytest.raises(UnknownNameError, match="known: large, small"):
        SPair(folder, layout="medium")
    with pytest.raises(DataError, match="layout=large"):
        SPair(folder, "trn", layout="small")
    with pytest.raises(DataError, match="num_pairs"):
        SPair(folder, num_pairs=-1)
    with pytest.raises(DataError, match="'cat/x'"):
        SPair(folder).image("cat/x")
    path = next((folder / "PairAnnotation/test").glob("000002*"))
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DataError, match="cut off") as caught:
        SPair(folder)
    assert path.name in str(caught.value)
    path.unlink()
    with pytest.raises(DataError, match="found no file at"):
        SPair(folder)


def test_indexing_opens_no_image(tmp_path: Path) -> None:
    folder = spair(tmp_path)
    for image in (folder / "JPEGImages").rglob("*.jpg"):
        image.unlink()
    assert len(SPair(folder).pairs) == 4
