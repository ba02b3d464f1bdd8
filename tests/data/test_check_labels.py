"""`diffcorr data check` on segmentation sets: made ones are sound, and every kind of damage is told."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffcorr.cli import main
from diffcorr.data.ade20k import ADE20K
from diffcorr.data.check_labels import check_labels
from diffcorr.data.coco_stuff import COCOStuff
from tests.helpers.make_label_datasets import (
    COCO_STEMS,
    ade20k,
    cityscapes,
    coco_stuff,
    domainnet,
    label_map,
    pascal_voc,
    stripes,
)

MAKERS: dict[str, Callable[[Path], Path]] = {
    "coco_stuff": coco_stuff,
    "cityscapes": cityscapes,
    "pascal_voc": pascal_voc,
    "ade20k": ade20k,
    "images_only": domainnet,
}
# images of each split
NUMBERS = {
    "coco_stuff": {"val": 3},
    "cityscapes": {"val": 2, "train": 1},
    "pascal_voc": {"val": 2, "train": 1, "trainval": 3},
    "ade20k": {"val": 2, "train": 1},
    "images_only": {"all": 6},
}


@pytest.mark.parametrize("name", MAKERS)
def test_a_made_data_set_is_sound(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = MAKERS[name](tmp_path)
    assert main(["data", "check", name, str(root), "--json"]) == 0
    printed = capsys.readouterr()
    report = json.loads(printed.out)
    assert printed.err == ""
    assert report["sound"]
    assert report["problems"] == []
    assert report["images"] == NUMBERS[name]
    assert main(["data", "check", name, str(root)]) == 0
    told = capsys.readouterr().out
    expected = {
        "coco_stuff": "val: 3 of 2,175 images, 7 of 27 classes, 13.4 % of pixels ignored",
        "cityscapes": "train: 1 of 2,975 images, 1 of 27 classes, 0.0 % of pixels ignored",
        "images_only": "all: 6 images without labels",
    }
    assert expected.get(name, "a sound subset") in told


def test_the_parent_of_the_folder_will_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, make in MAKERS.items():
        if name != "images_only":
            make(tmp_path / name)
            assert main(["data", "check", name, str(tmp_path / name)]) == 0
    assert "a sound subset" in capsys.readouterr().out


def problems(root: Path) -> list[str]:
    report = check_labels(ADE20K, root)
    assert not report.sound
    assert not any("\n" in line for line in report.lines())
    return report.problems


def test_damage_is_found(tmp_path: Path) -> None:
    folder = ade20k(tmp_path)
    image = folder / "images/validation/ADE_val_00000001.jpg"
    label = folder / "annotations/validation/ADE_val_00000001.png"
    whole = {path: path.read_bytes() for path in (image, label)}

    def halve(path: Path) -> int:
        return path.write_bytes(whole[path][: len(whole[path]) // 2])

    for path, spoil, told in (
        (image, lambda: halve(image), "1 images cannot be read"),
        (label, lambda: halve(label), "1 label maps cannot be read"),
        (label, label.unlink, "1 label maps are missing"),
        (label, lambda: label_map(label, stripes((30, 21), 1)), "1 label maps have another size than their"),
        (label, lambda: label_map(label, stripes((31, 21), 151)), "1 label maps have unknown ids"),
        (label, lambda: Image.new("RGB", (31, 21)).save(label), "1 label maps cannot be read"),
    ):
        spoil()
        (problem,) = problems(folder)
        assert problem.startswith(f"val: {told}")
        assert str(path) in problem
        path.write_bytes(whole[path])
    assert check_labels(ADE20K, folder).sound
    other = folder / "annotations/validation/ADE_val_00000002.png"
    other.unlink()
    label_map(label, stripes((30, 21), 1))
    assert len(problems(folder)) == 2
    assert "30x21, the image 31x21" in problems(folder)[0]


def test_turned_images_and_a_missing_list_are_noted(tmp_path: Path) -> None:
    (note,) = check_labels(COCOStuff, coco_stuff(tmp_path / "a")).notes
    assert note.startswith("val: 1 images are turned upright by their EXIF flag")
    assert COCO_STEMS[1] in note
    report = check_labels(COCOStuff, coco_stuff(tmp_path / "b", curated=False))
    assert report.sound
    assert report.images == {"val": 4}  # every labelled image
    assert report.official_images == {}  # which no published number counts
    assert "no Coco164kFull_Stuff_Coarse_7.txt for val" in report.notes[0]


def test_more_than_the_official_number_is_no_official_list(tmp_path: Path) -> None:
    class Small(ADE20K):
        about = type(ADE20K.about)(**{**vars(ADE20K.about), "num_labelled": {"val": 1, "train": 1}})

    (problem,) = check_labels(Small, ade20k(tmp_path)).problems
    assert problem == "val: expected at most 1 images, found 2: not the published list"

    class Exact(ADE20K):
        about = type(ADE20K.about)(**{**vars(ADE20K.about), "num_labelled": {"val": 2, "train": 1}})

    report = check_labels(Exact, tmp_path)
    assert report.complete
    assert report.ignored["val"] == pytest.approx(8 * 21 / (31 * 21 + 22 * 33))


def test_the_command_fails_with_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = cityscapes(tmp_path, labels=False)
    (tmp_path / "none").mkdir()
    for words, told in (
        (["cityscapes", str(folder)], "expected Cityscapes in"),
        (["ade20k", str(tmp_path / "nowhere")], "found no such folder"),
        (["coco_stuff", str(folder)], "images/val2017 + annotations/val2017 or"),
        (["images_only", str(tmp_path / "nowhere")], "expected a sound images_only"),
        (["images_only", str(tmp_path / "none")], "expected a sound images_only"),
        (["pascal", str(folder)], "pascal_voc"),
    ):
        assert main(["data", "check", *words]) == 1
        printed = capsys.readouterr().err
        assert printed.startswith("error: ")
        assert told in printed
        assert printed.count("\n") == 1
    (folder / "gtFine").mkdir()
    assert main(["data", "check", "cityscapes", str(folder)]) == 1
    assert "val: 2 label maps are missing" in capsys.readouterr().out


def test_list_tells_where_to_get_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "list", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    for name in MAKERS:
        assert all(rows[name][key] for key in ("source", "licence", "size", "layout", "citation"))
    assert {name: rows[name]["labelled"].get("val") for name in MAKERS} == {
        "coco_stuff": 2_175,
        "cityscapes": 500,
        "pascal_voc": 1_449,
        "ade20k": 2_000,
        "images_only": None,
    }
    assert main(["data", "list"]) == 0
    assert "complete: 500 labelled val images, 2,975 labelled train images" in capsys.readouterr().out


def test_a_label_of_sixteen_bits_is_read(tmp_path: Path) -> None:
    folder = ade20k(tmp_path)
    ids = stripes((31, 21), 1, 150)
    Image.fromarray(ids.astype(np.uint16)).save(folder / "annotations/validation/ADE_val_00000001.png")
    assert set(np.unique(ADE20K(folder)[0]["label"])) == {0, 149}
