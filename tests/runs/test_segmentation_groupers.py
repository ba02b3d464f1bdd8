"""Groupers side by side in one run: whence their numbers of segments come, protocols, figures, the cache."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffcorr.config import compose
from diffcorr.data.partworld import PartWorldSegmentation
from diffcorr.errors import DiffcorrError, UnknownNameError
from diffcorr.runs.evaluate import evaluate
from tests.helpers.tiny_models import save_tiny_pipeline

NUM_IMAGES = 3


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_pipeline(tmp_path_factory.mktemp("toy"))


def options(toy: Path, output: Path, *more: str) -> list[str]:
    return [
        *("task=segmentation", f"output_dir={output}", "num_figures=1", "trainer.accelerator=cpu"),
        *("backbone=local", f"backbone.path_or_name={toy}", "backbone.name=toy"),
        *("+trainer.enable_progress_bar=false", *more),
    ]


def partworld(toy: Path, output: Path, *more: str) -> list[str]:
    return options(toy, output, "data.split=val", f"data.num_images={NUM_IMAGES}", *more)


def segments(run: Path, method: str) -> list[int]:
    """Number of segments of each stored mask, in the order of the images."""
    paths = sorted((run / "masks" / method).rglob("*.png"))
    return [len(np.unique(np.asarray(Image.open(path)))) for path in paths]


@pytest.fixture(scope="module")
def run(toy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("run")
    evaluate(
        compose(
            "eval",
            partworld(
                *(toy, run, "method=kmeans_c", "method.num_segments=2", f"method.cache={run}/cache"),
                "baselines=[kmeans_s,kmeans_pixels,kmeans_c,one_segment]",
                "protocols=[diffseg_512,per_image]",
            ),
        )
    )
    return run


def test_each_method_gets_the_numbers_that_it_asks_for(run: Path):
    data = PartWorldSegmentation("val", NUM_IMAGES)
    classes = [len(np.unique(data[i]["label"][data[i]["label"] >= 0])) for i in range(NUM_IMAGES)]
    assert len(set(classes)) > 1
    assert segments(run, "kmeans_c") == [2] * NUM_IMAGES
    assert segments(run, "kmeans_pixels") == [2] * NUM_IMAGES
    assert segments(run, "kmeans_s") == classes
    assert segments(run, "one_segment") == [1] * NUM_IMAGES


def test_every_method_is_scored_once_under_every_protocol(run: Path):
    records = [r for r in json.loads((run / "metrics.json").read_text()) if "group" not in r]
    methods = ["kmeans_c", "kmeans_s", "kmeans_pixels", "one_segment"]
    found = [(r["method"], r["protocol"]) for r in records if r["metric"] == "miou"]
    assert sorted(found) == sorted((m, p) for m in methods for p in ("per_image", "diffseg_512"))
    comparisons = json.loads((run / "comparisons.json").read_text())
    assert {(c["against"], c["protocol"]) for c in comparisons} == {
        pair for pair in found if pair[0] != "kmeans_c"
    }
    report = (run / "report.md").read_text()
    assert "miou (per_image)" in report
    assert "miou (diffseg_512)" in report


def test_good_and_bad_cases_are_drawn(run: Path):
    assert sorted(path.name for path in (run / "figures/cases").iterdir()) == [
        "kmeans_c-best.png",
        "kmeans_c-worst.png",
    ]
    assert len(list((run / "figures/segmentation").glob("*.png"))) == 4


def test_a_cache_changes_no_mask_and_is_no_other_method(run: Path, toy: Path, caplog):
    assert len(list((run / "cache").iterdir())) == NUM_IMAGES
    before = (run / "metrics.json").read_text()
    with caplog.at_level("INFO"):
        evaluate(
            compose(
                "eval",
                partworld(toy, run, "method=kmeans_c", "method.num_segments=2", "baselines=[kmeans_s]"),
            )
        )
    assert f"kmeans_c, seed 0: {NUM_IMAGES} masks stored, 0 to predict" in caplog.text
    assert f"kmeans_s, seed 0: {NUM_IMAGES} masks stored, 0 to predict" in caplog.text
    assert (run / "metrics.json").read_text() == before


def test_images_without_labels_are_cut_and_drawn_but_not_scored(toy: Path, tmp_path: Path):
    (tmp_path / "in").mkdir()
    for i, size in enumerate([(40, 30), (20, 50)]):
        Image.fromarray(np.full((*size, 3), 40 * i, np.uint8)).save(tmp_path / f"in/{i}.png")
    words = ("data=images_only", f"data.root={tmp_path}/in", "method=ncut", "baselines=[one_segment]")
    small = ("method.input_size=null", "method.feature_layer=0")
    evaluate(compose("eval", options(toy, tmp_path / "run", *words, *small)))
    assert len(segments(tmp_path / "run", "ncut")) == 2
    assert not (tmp_path / "run/metrics.json").exists()
    assert len(list((tmp_path / "run/figures/segmentation").glob("*.png"))) == 2
    with pytest.raises(DiffcorrError, match="kmeans_s needs the number of segments"):
        evaluate(compose("eval", options(toy, tmp_path / "other", *words[:2], "method=kmeans_s")))


def test_an_unknown_protocol_is_named_before_the_work(toy: Path, tmp_path: Path):
    with pytest.raises(UnknownNameError, match="protocol for masks 'standard'; known: per_image"):
        evaluate(compose("eval", partworld(toy, tmp_path, "protocols=[standard]")))
