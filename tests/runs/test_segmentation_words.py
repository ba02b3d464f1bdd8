"""Named segments from configuration to scores, and what makes a stored mask another one."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffcorr.config import compose
from diffcorr.data.partworld import PartWorldSegmentation
from diffcorr.errors import DiffcorrError
from diffcorr.runs.evaluate import evaluate
from tests.helpers.make_label_datasets import coco_stuff
from tests.helpers.tiny_models import save_tiny_pipeline


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_pipeline(tmp_path_factory.mktemp("toy"))


def run(toy: Path, output: Path, *more: str) -> None:
    words = [
        *("task=segmentation", f"output_dir={output}", "num_figures=1", "trainer.accelerator=cpu"),
        *("backbone=local", f"backbone.path_or_name={toy}", "backbone.name=toy"),
        *("+trainer.enable_progress_bar=false", *more),
    ]
    evaluate(compose("eval", words))


def test_classes_of_the_data_set_are_the_words(toy: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    # the toy spells words letter by letter in a prompt of eight tokens
    options = (
        *("method=diffseg_words", "method.template='{}'", "method.num_draws=1", "method.grouper.tau=1e-4"),
        *("baselines=[diffseg_words_chance]", "protocol=words", "data.split=val", "data.num_images=3"),
    )
    run(toy, tmp_path, *options)
    data = PartWorldSegmentation("val", 3)
    right = total = 0
    for index in range(3):
        sample = data[index]
        (path,) = (tmp_path / "masks/diffseg_words").rglob(f"{sample['image_id']}.png")
        mask = np.asarray(Image.open(path)).astype(int)
        assert mask.max() < len(data.classes)
        right, total = right + int((mask == sample["label"]).sum()), total + mask.size
    records = json.loads((tmp_path / "metrics.json").read_text())
    found = {
        (r["method"], r["protocol"]): r["value"]
        for r in records
        if r["metric"] == "accuracy" and "group" not in r
    }
    assert found["diffseg_words", "words"] == pytest.approx(100 * right / total)
    assert ("diffseg_words_chance", "words") in found
    with caplog.at_level("INFO"):  # a cache, however deep it is set, makes no other mask; other words do
        run(toy, tmp_path, *options, f"method.grouper.cache={tmp_path}/cache")
        run(toy, tmp_path, *options, "method.words=[cat,sky]")
    assert "diffseg_words, seed 0: 3 masks stored, 0 to predict" in caplog.text
    assert "diffseg_words, seed 0: 0 masks stored, 3 to predict" in caplog.text


def test_a_data_set_without_captions_is_told_in_one_line(toy: Path, tmp_path: Path):
    root = coco_stuff(tmp_path)
    options = ("data=coco_stuff", f"data.root={root}", "data.split=val", "method=diffseg_caption")
    with pytest.raises(DiffcorrError, match="this data set has no captions; set"):
        run(toy, tmp_path / "run", *options, "baselines=[]")


def test_masks_of_another_crop_are_made_anew(toy: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    root = coco_stuff(tmp_path)
    options = (
        *("data=coco_stuff", f"data.root={root}", "data.split=val", "method=one_segment", "baselines=[]"),
    )
    with caplog.at_level("INFO"):
        for square in (40, 24, 24):
            run(toy, tmp_path / "run", *options, f"data.square={square}")
    told = [line for line in caplog.messages if line.startswith("one_segment, seed 0:") and "stored" in line]
    assert [line.split(": ")[1] for line in told] == [
        "0 masks stored, 3 to predict",
        "0 masks stored, 3 to predict",
        "3 masks stored, 0 to predict",
    ]
    for path in (tmp_path / "run/masks").rglob("*.png"):
        assert Image.open(path).size == (24, 24)
