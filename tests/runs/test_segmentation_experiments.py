"""The segmentation tables of the papers, on tiny data sets in the true layouts and a toy pipeline."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffcorr.config import compose, config_folder, instantiate
from diffcorr.reports.published_segmentation import published_segmentation
from diffcorr.runs.evaluate import evaluate
from tests.helpers import masks_reference
from tests.helpers.make_label_datasets import cityscapes, coco_stuff
from tests.helpers.tiny_models import save_tiny_pipeline

# data, side of the square, threshold, and what the paper gives for it
TABLES: dict[str, tuple[Callable[[Path], Path], int, float, str]] = {
    "diffseg_coco27_512": (coco_stuff, 512, 1.1, "DiffSeg (512)"),
    "diffseg_coco27_320": (coco_stuff, 320, 1.1, "DiffSeg (320)"),
    "diffseg_cityscapes": (cityscapes, 512, 0.9, "DiffSeg (512)"),
}


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_pipeline(tmp_path_factory.mktemp("toy"))


@pytest.mark.parametrize("name", TABLES)
def test_the_papers_settings(name: str) -> None:
    make, side, tau, method = TABLES[name]
    config = compose("eval", [f"experiment={name}", "data.root=nowhere"])
    assert (config.task, config.backbone.path_or_name) == ("segmentation", "sd14")
    assert (config.method.tau, config.method.mode, config.method.anchors) == (tau, "reference", 16)
    assert (config.method.iterations, config.method.timestep, config.method.refine) == (3, 300, False)
    assert (config.data.split, config.data.num_images, config.data.square) == ("val", None, side)
    assert config.protocol.name == f"diffseg_{side}"
    # what to expect stands in the file, beside its protocol
    text = (config_folder() / "experiment" / f"{name}.yaml").read_text()
    rows = [r for r in published_segmentation() if (r.dataset, r.method) == (make.__name__, method)]
    assert len(rows) == 2
    for row in rows:
        assert row.protocol == config.protocol.name
        assert any(f"{row.value:.1f}" in line and row.protocol in line for line in text.splitlines())


@pytest.mark.parametrize("name", TABLES)
def test_it_runs_and_scores_as_the_program_does(name: str, toy: Path, tmp_path: Path) -> None:
    """At 40 pixels instead of 512; the stored masks are scored again by a slow copy of the accounting."""
    make, _, _, _ = TABLES[name]
    config = compose(
        "eval",
        [
            *(
                f"experiment={name}",
                f"data.root={make(tmp_path)}",
                f"output_dir={tmp_path}/run",
                "data.square=40",
            ),
            *(f"backbone.path_or_name={toy}", "backbone.image_size=32", "backbone.paper_layers=null"),
            *(
                "trainer.accelerator=cpu",
                "+trainer.enable_progress_bar=false",
                "num_figures=1",
                "method.tau=0.01",
            ),
        ],
    )
    evaluate(config)
    data, side = instantiate(config.data), int(config.protocol.name.removeprefix("diffseg_"))
    counts = np.zeros((3, 27))
    for index in range(len(data)):
        sample = data[index]
        (path,) = (tmp_path / "run/masks/diffseg_reference").rglob(f"{sample['image_id']}.png")
        mask = np.asarray(Image.open(path)).astype(int)
        assert mask.shape == sample["label"].shape == (40, 40)
        seen = [masks_reference.diffseg_frame(pixels, side) for pixels in (mask, sample["label"])]
        counts += masks_reference.program_counts(*seen, 27)
    records = json.loads((tmp_path / "run/metrics.json").read_text())
    found = {
        r["metric"]: r["value"]
        for r in records
        if r["method"] == "diffseg_reference" and "group" not in r and r["protocol"] == config.protocol.name
    }
    with np.errstate(invalid="ignore"):
        iou = counts[0] / counts.sum(0)
    assert found["miou"] == pytest.approx(100 * np.nanmean(iou))
    assert found["accuracy"] == pytest.approx(100 * counts[0].sum() / (counts[0] + counts[2]).sum())
    assert {r["protocol"] for r in records} == {config.protocol.name, "per_image"}
