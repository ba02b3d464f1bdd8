"""Segmentation data sets: made on disk in their true layouts, driven through the entry points."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from diffcorr.config import compose, instantiate, load_option
from diffcorr.data.ade20k import ADE20K
from diffcorr.data.cityscapes import Cityscapes
from diffcorr.data.coco_stuff import COCOStuff
from diffcorr.data.images_only import ImagesOnly
from diffcorr.data.pascal_voc import PascalVOC
from diffcorr.errors import DataError, ProtocolError, UnknownNameError
from diffcorr.metrics import MASK_PROTOCOLS, score_masks
from diffcorr.runs.evaluate import evaluate
from tests.helpers.make_datasets import picture
from tests.helpers.make_label_datasets import (
    COCO_LAYOUTS,
    COCO_STEMS,
    ade20k,
    cityscapes,
    coco_stuff,
    domainnet,
    label_map,
    pascal_voc,
    stripes,
)
from tests.helpers.tiny_models import save_tiny_pipeline

MAKERS: dict[str, Callable[[Path], Path]] = {
    "coco_stuff": coco_stuff,
    "cityscapes": cityscapes,
    "pascal_voc": pascal_voc,
    "ade20k": ade20k,
}
# of the default split: (size, pixels of each class, -1 ignored), image by image, counted by hand from the
# stripes: the first is twice as wide, widths are rounded
EXPECTED = {
    "coco_stuff": [
        ((23, 17), {26: 15 * 17, -1: 8 * 17}),
        ((20, 30), {23: 20 * 30}),
        ((31, 21), {9: 9 * 21, 4: 4 * 21, 8: 5 * 21, 17: 4 * 21, 24: 5 * 21, -1: 4 * 21}),
    ],
    "cityscapes": [((41, 23), {0: 16 * 23, 26: 9 * 23, -1: 16 * 23}), ((24, 42), {4: 16 * 42, -1: 8 * 42})],
    "pascal_voc": [
        ((31, 21), {0: 12 * 21, 20: 7 * 21, -1: 6 * 21, 1: 6 * 21}),
        ((20, 30), {15: 390, 0: 210}),
    ],
    "ade20k": [((31, 21), {0: 16 * 21, 149: 7 * 21, -1: 8 * 21}), ((22, 33), {2: 22 * 33})],
}
# the superclass of each id 0..181 in the published programs, a for 0, b for 1, ..., A for 26
PUBLISHED_COCO = (
    "jlllllllliiiiiihhhhhhhhhhggggggggkkkkkkkkkkffffffffccccccccccddddddddddaaaaaabbbbbbeeeeeeee"
    "rrwuuwpzqnmmrrxpprpvpznnnnnwAoopwvvyuwprqpwyvrzqvrwqvvzvAvyurovApxuvypywzpurrwosssssssAAtty"
)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_pipeline(tmp_path_factory.mktemp("toy"))


def words(toy: Path, name: str, root: Path, output: Path, *more: str) -> list[str]:
    return [
        *("task=segmentation", f"data={name}", f"data.root={root}", f"output_dir={output}", "num_figures=2"),
        *("backbone=local", f"backbone.path_or_name={toy}", "backbone.name=toy", "trainer.accelerator=cpu"),
        *("+trainer.enable_progress_bar=false", "method=one_segment", "baselines=[]", *more),
    ]


@pytest.mark.parametrize("name", MAKERS)
def test_images_and_labels_are_what_was_written(name: str, tmp_path: Path) -> None:
    root = MAKERS[name](tmp_path)
    data = instantiate(load_option("data", name), root=root)
    assert len(data) == len(EXPECTED[name])
    for sample, ((width, height), pixels) in zip(
        (data[i] for i in range(len(data))), EXPECTED[name], strict=True
    ):
        assert sample["image"].shape == (height, width, 3)
        assert sample["image"].dtype == np.uint8
        assert sample["label"].dtype == np.int64
        found = zip(*np.unique(sample["label"], return_counts=True), strict=True)
        assert {int(c): int(n) for c, n in found} == pixels
    assert max(max(pixels) for _, pixels in EXPECTED[name]) < len(data.classes) == len(set(data.classes))


@pytest.mark.parametrize("name", MAKERS)
def test_a_made_data_set_is_evaluated_from_its_config(name: str, toy: Path, tmp_path: Path) -> None:
    """One segment an image: it is matched to the most frequent class, every other pixel is an error."""
    root = MAKERS[name](tmp_path)
    evaluate(compose("eval", words(toy, name, root, tmp_path / "run")))
    records = json.loads((tmp_path / "run/metrics.json").read_text())
    overall = {r["metric"]: r for r in records if "group" not in r}
    labelled = [{c: n for c, n in pixels.items() if c >= 0} for _, pixels in EXPECTED[name]]
    right = sum(max(pixels.values()) for pixels in labelled)
    total = sum(sum(pixels.values()) for pixels in labelled)
    assert overall["accuracy"]["value"] == pytest.approx(100 * right / total)
    assert (overall["miou"]["num_items"], overall["miou"]["dataset"]) == (len(labelled), name)
    assert overall["miou"]["protocol"] == "per_image"
    assert len(list((tmp_path / "run/masks/one_segment").rglob("*.png"))) == len(labelled)
    assert list((tmp_path / "run/figures/segmentation").glob("*.png"))


@pytest.mark.parametrize("layout", COCO_LAYOUTS)
def test_layouts_of_coco_are_detected(layout: str, tmp_path: Path) -> None:
    data = COCOStuff(coco_stuff(tmp_path, layout))
    assert [file.image_id for file in data.files] == list(reversed(COCO_STEMS))  # the order of the list
    assert data[1]["image"].shape == (30, 20, 3)


def test_the_list_of_coco_is_taken_from_the_copy_or_given(tmp_path: Path) -> None:
    root = coco_stuff(tmp_path, curated=False)
    with pytest.raises(DataError, match=r"expected the list of val images .*Coarse_7.txt, found none"):
        COCOStuff(root)
    assert len(COCOStuff(root, image_list="all")) == 4
    mine = tmp_path / "mine.txt"
    mine.write_text(f"{COCO_STEMS[1]}.jpg\n\n{COCO_STEMS[0]}\n{COCO_STEMS[1]}\n")
    assert [f.image_id for f in COCOStuff(root, image_list=str(mine)).files] == [COCO_STEMS[1], COCO_STEMS[0]]
    for text, told in (
        ("../secret\n", "found '../secret'"),
        ("000000009999\n", "000000009999.jpg of coco_stuff"),
    ):
        mine.write_text(text)
        with pytest.raises(DataError, match=told):
            COCOStuff(root, image_list=str(mine))


def test_superclasses_of_coco_are_those_of_the_published_programs() -> None:
    letters = "abcdefghijklmnopqrstuvwxyzA"
    assert "".join(letters[COCOStuff.table[fine]] for fine in range(182)) == PUBLISHED_COCO
    assert set(COCOStuff.table) == {*range(182), 255}
    assert COCOStuff.table[255] == -1
    names = COCOStuff.classes
    assert (len(names), names[9], names[12], names[23]) == (27, "person", "ceiling", "sky")


def test_tables_of_the_other_sets() -> None:
    assert [Cityscapes.table[i] for i in (0, 6, 7, 33, 255)] == [-1, -1, 0, 26, -1]
    assert [Cityscapes.classes[i - 7] for i in (7, 23, 33)] == ["road", "sky", "bicycle"]
    assert [PascalVOC.table[i] for i in (0, 20, 255)] == [0, 20, -1]
    assert (len(PascalVOC.classes), PascalVOC.classes[15]) == (21, "person")
    assert [ADE20K.table[i] for i in (0, 1, 150)] == [-1, 0, 149]
    # lines 13, 75 and 150 of objectInfo150.txt
    assert (len(ADE20K.classes), *(ADE20K.classes[i] for i in (12, 74, 149))) == (
        150,
        "person",
        "computer",
        "flag",
    )


def test_a_label_map_is_turned_with_its_picture(tmp_path: Path) -> None:
    """Every EXIF orientation under which the sides change places, against Pillow's own turning."""
    ids = np.random.default_rng(0).integers(1, 151, (20, 30))
    for flag in (5, 6, 7, 8):
        folder = ade20k(tmp_path / str(flag))
        path = folder / "annotations/validation/ADE_val_00000001.png"
        label_map(path, ids)
        picture(folder / "images/validation/ADE_val_00000001.jpg", (30, 20), orientation=flag)
        exif = Image.Exif()
        exif[0x0112] = flag
        Image.open(path).save(tmp_path / "turned.png", exif=exif)
        expected = np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / "turned.png"))).astype(int) - 1
        np.testing.assert_array_equal(ADE20K(folder)[0]["label"], expected)


def test_the_centre_square_is_cropped_and_resized_by_pixel_centres(tmp_path: Path) -> None:
    """Against loops over pixels: bilinear without low-pass for the image, nearest for the label."""
    side, (width, height) = 5, (31, 21)
    root = ade20k(tmp_path)
    whole, small = ADE20K(root)[0], ADE20K(root, square=side)[0]
    left, short = (width - height) // 2, height
    for row in range(side):
        for column in range(side):
            y, x = ((place + 0.5) * short / side for place in (row, column))
            assert small["label"][row, column] == whole["label"][int(y), left + int(x)]
            y, x = y - 0.5, x - 0.5
            y0, x0 = int(y), int(x)
            fy, fx = y - y0, x - x0
            patch = whole["image"][y0 : y0 + 2, left + x0 : left + x0 + 2].astype(float)
            expected = (1 - fy) * ((1 - fx) * patch[0, 0] + fx * patch[0, 1]) + fy * (
                (1 - fx) * patch[1, 0] + fx * patch[1, 1]
            )
            assert np.abs(small["image"][row, column] - expected).max() <= 0.5 + 1e-3
    assert ADE20K(root, square=64)[0]["label"].shape == (64, 64)


def test_bad_label_maps_are_refused_in_one_line(tmp_path: Path) -> None:
    root = cityscapes(tmp_path)
    path = root / "gtFine/val/frankfurt/frankfurt_000000_000019_gtFine_labelIds.png"
    good = path.read_bytes()
    for spoil, told in (
        (
            lambda: label_map(path, stripes((41, 23), 7, 34)),
            r"expected ids 0\.\.33, 255 in .*, found 34: take",
        ),
        (lambda: label_map(path, stripes((40, 23), 7)), r"of 41x23 like its image .*, found 40x23 in"),
        (lambda: label_map(path, stripes((23, 41), 7)), r"of 41x23 like its image .*, found 23x41 in"),
        (lambda: Image.new("RGB", (41, 23)).save(path), r"one id a pixel .*, found a picture of mode RGB"),
        (lambda: path.write_bytes(good[: len(good) // 2]), "expected a readable label map"),
    ):
        spoil()
        with pytest.raises(DataError, match=told) as caught:
            Cityscapes(root)[0]
        assert "\n" not in str(caught.value)
    path.unlink()
    with pytest.raises(
        DataError, match=r"expected the label map .*labelIds.png of cityscapes, found no such"
    ):
        Cityscapes(root)


@pytest.mark.parametrize("name", MAKERS)
def test_wrong_folders_and_options_are_one_line(name: str, tmp_path: Path) -> None:
    root = MAKERS[name](tmp_path)
    (tmp_path / "empty").mkdir()
    node = load_option("data", name)
    for options, error, told in (
        ({"root": f"{tmp_path}/nowhere"}, DataError, "found no such folder"),
        ({"root": f"{tmp_path}/empty"}, DataError, "found no such layout"),
        ({"root": root, "split": "vall"}, UnknownNameError, f"split of {name} 'vall'; known: val"),
        ({"root": root, "num_images": 0}, DataError, "num_images of 1 or more, found 0"),
        ({"root": root, "square": 0}, DataError, "square of 1 or more, found 0"),
    ):
        with pytest.raises(error, match=told) as caught:
            instantiate(node, **options)
        assert "\n" not in str(caught.value)


def test_images_without_labels_are_drawn_and_not_scored(toy: Path, tmp_path: Path) -> None:
    """Masks of every image, of one colour too, and a sheet; no score, whatever protocol is asked for."""
    config = compose(
        "eval", words(toy, "images_only", domainnet(tmp_path), tmp_path / "run", "method=diffseg")
    )
    evaluate(config)
    masks = list((tmp_path / "run/masks/diffseg/seed0").glob("*.png"))
    assert len(masks) == 6
    assert list((tmp_path / "run/figures/segmentation").glob("*.png"))
    assert not list((tmp_path / "run").glob("metrics.json"))


def test_images_without_labels_come_from_every_style(tmp_path: Path) -> None:
    root = domainnet(tmp_path)
    data = ImagesOnly(root, num_images=4)
    styles = [data[i]["tags"]["style"] for i in range(4)]
    assert styles == ["clipart", "quickdraw", "sketch", "clipart"]
    assert [f.image_id for f in ImagesOnly(root).files].count("clipart/cat/c1.jpg") == 1
    assert len(ImagesOnly(root)) == 6
    sample = ImagesOnly(root / "quickdraw")[1]
    assert sample["image"].shape == (30, 20, 3)
    assert (sample["label"] == -1).all()
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        DataError, match=r"expected images in .*empty \(images without labels, all\), found none"
    ):
        ImagesOnly(tmp_path / "empty")
    for protocol in MASK_PROTOCOLS:
        with pytest.raises(ProtocolError, match=f"labels to score masks under '{protocol}'") as caught:
            score_masks({}, data, protocol)
        assert "\n" not in str(caught.value)
