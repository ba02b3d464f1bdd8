"""Global ids and carried label maps from configuration to scores, on a toy pipeline."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffcorr.config import compose
from diffcorr.data.labels import LabelMap
from diffcorr.data.partworld import PartWorldPairs, PartWorldSegmentation
from diffcorr.errors import DataError, DiffcorrError, ImageError
from diffcorr.runs.evaluate import evaluate
from diffcorr.types import LabelledPairs, UInt8Image
from tests.helpers.tiny_models import save_tiny_pipeline


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_pipeline(tmp_path_factory.mktemp("toy"))


def run(toy: Path, output: Path, *more: str) -> list[dict]:
    words = [
        *(f"output_dir={output}", "num_figures=1", "trainer.accelerator=cpu", "data.split=val"),
        *("backbone=local", f"backbone.path_or_name={toy}", "backbone.name=toy"),
        *("+trainer.enable_progress_bar=false", *more),
    ]
    evaluate(compose("eval", words))
    return json.loads((output / "metrics.json").read_text())


def test_segments_of_a_data_set_get_global_ids(toy: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    words = (
        *("experiment=clusters", "seeds=[0]", "data.num_images=3", "baselines=[one_segment]"),
        *(
            "method=kmeans_c",
            "method.num_segments=3",
            "clusters.num_clusters=4",
            "clusters.features.ensemble=1",
        ),
    )
    records = run(toy, tmp_path, *words)
    overall = {r["method"]: r for r in records if r["metric"] == "accuracy" and "group" not in r}
    assert set(overall) == {"kmeans_c+features", "kmeans_c+chance", "one_segment+features"}
    assert {r["protocol"] for r in records} == {"global"}
    data = PartWorldSegmentation("val", 3)
    total = np.zeros((len(data.classes), 4))
    for index in range(3):
        sample = data[index]
        local, named = (
            np.asarray(Image.open(tmp_path / f"masks/{name}/seed0/{sample['image_id']}.png")).astype(int)
            for name in ("kmeans_c", "kmeans_c%2Bfeatures")
        )
        for k in np.unique(local):  # a segment is in one cluster
            assert len(np.unique(named[local == k])) == 1
        np.add.at(total, (sample["label"], named), 1)
    # the best assignment of four clusters to classes, by trying all of them
    best = max(
        total[a, 0] + total[b, 1] + total[c, 2] + total[d, 3]
        for a in range(15)
        for b in range(15)
        for c in range(15)
        for d in range(15)
        if len({a, b, c, d}) == 4
    )
    assert overall["kmeans_c+features"]["value"] == pytest.approx(100 * best / total.sum())
    caplog.clear()
    with caplog.at_level("INFO"):
        assert run(toy, tmp_path, *words) == records
    assert "clustering the segments" not in caplog.text


def test_label_maps_are_carried_stored_and_scored(
    toy: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    words = (
        *("task=propagation", "method=carry_segments", "data.num_pairs=3", "method.features.block=0"),
        "baselines=[copy_label]",
    )
    records = run(toy, tmp_path, *words)
    overall = {(r["method"], r["metric"]): r["value"] for r in records if "group" not in r}
    data = PartWorldPairs("val", num_pairs=3)
    assert isinstance(data, LabelledPairs)
    truth = [data.label(pair.target_id) for pair in data.pairs]
    copied = [data.label(pair.source_id) for pair in data.pairs]
    iou = [((a > 0) & (b > 0)).sum() / ((a > 0) | (b > 0)).sum() for a, b in zip(copied, truth, strict=True)]
    assert overall["copy_label", "mask_iou"] == pytest.approx(100 * np.mean(iou))
    right = [(a == b).mean() for a, b in zip(copied, truth, strict=True)]
    assert overall["copy_label", "label_accuracy"] == pytest.approx(100 * np.mean(right))
    for pair in data.pairs:
        path = tmp_path / f"labels/carry_segments/seed0/{pair.pair_id}.png"
        assert set(np.unique(np.asarray(Image.open(path)))) <= set(np.unique(data.label(pair.source_id)))
    assert {r["protocol"] for r in records} == {"label_transfer"}
    comparisons = json.loads((tmp_path / "comparisons.json").read_text())
    assert {c["metric"] for c in comparisons} == {"label_accuracy", "mask_accuracy", "mask_iou"}
    assert (tmp_path / "figures/propagation/carry_segments-1.png").exists()
    with caplog.at_level("INFO"):
        assert run(toy, tmp_path, *words) == records
    assert "carry_segments, seed 0: 3 pairs stored, 0 to predict" in caplog.text


class OneIsGone(PartWorldPairs):
    """Pairs of a user's own class, the first of which lacks its source or its truth."""

    gone = True
    target_gone = False

    def label(self, image_id: str) -> LabelMap:
        if self.target_gone and image_id == self.pairs[0].target_id:
            raise DataError(f"expected a label map, found none: {image_id}")
        return super().label(image_id)

    def image(self, image_id: str) -> UInt8Image:
        if self.gone and image_id == self.pairs[0].source_id:
            raise ImageError(f"expected an image, found none: {image_id}")
        return super().image(image_id)


def test_pairs_that_cannot_be_carried_are_told_and_left_out(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    own = f"data._target_={__name__}.OneIsGone"
    words = ("task=propagation", "method=copy_label", "baselines=[]", "data.num_pairs=3", own)
    records = run(toy, tmp_path, *words)
    (line,) = (tmp_path / "failures.jsonl").read_text().splitlines()
    first, *others = PartWorldPairs("val", num_pairs=3).pairs
    assert json.loads(line)["item"] == first.pair_id
    assert {(r["num_items"], r["num_asked"]) for r in records if "group" not in r} == {(2, 3)}
    data = PartWorldPairs("val")
    right = [(data.label(pair.source_id) == data.label(pair.target_id)).mean() for pair in others]
    overall = {r["metric"]: r["value"] for r in records if "group" not in r}
    assert overall["label_accuracy"] == pytest.approx(100 * np.mean(right))
    monkeypatch.setattr(OneIsGone, "gone", False)
    records = run(toy, tmp_path, *words)
    assert {r["num_items"] for r in records if "group" not in r} == {3}
    assert not any("num_asked" in r for r in records)
    monkeypatch.setattr(OneIsGone, "target_gone", True)
    records = run(toy, tmp_path, *words)
    (line,) = (tmp_path / "failures.jsonl").read_text().splitlines()
    assert json.loads(line)["item"] == first.pair_id
    assert "expected a label map" in json.loads(line)["reason"]
    assert {r["num_items"] for r in records if "group" not in r} == {2}
    monkeypatch.setattr(OneIsGone, "gone", True)
    with pytest.raises(DiffcorrError, match="expected results of copy_label, found none: every pair"):
        run(toy, tmp_path / "one", *words[:-2], "data.num_pairs=1", own)


@pytest.mark.parametrize("method", ["dift", "diffseg"])
def test_a_method_of_another_task_is_one_line(toy: Path, tmp_path: Path, method: str):
    with pytest.raises(DiffcorrError, match=f"expected a method that carries label maps, found '{method}'"):
        run(toy, tmp_path / "run", "task=propagation", "data.num_pairs=1", f"method={method}")


def test_pairs_without_label_maps_are_refused(toy: Path, tmp_path: Path):
    with pytest.raises(DataError, match="expected pairs with label maps, found none in"):
        run(toy, tmp_path / "run", "task=propagation", "data.num_pairs=0")


def test_label_maps_of_partworld_are_visible_parts_under_their_names():
    data = PartWorldPairs("val", num_pairs=12)
    pair = data.pairs[0]
    label = data.label(pair.source_id)
    assert label.shape == data.image(pair.source_id).shape[:2]
    assert data.label_names[0] == "other"
    assert len(set(data.label_names)) == len(data.label_names)
    named = {data.label_names[k] for k in np.unique(label)}
    assert len(named) > 2
    # keypoints that are visible lie on the object, or within two pixels of its border
    for x, y in pair.source_points:
        near = label[max(0, int(y) - 2) : int(y) + 3, max(0, int(x) - 2) : int(x) + 3]
        assert (near > 0).any()
    assert torch.from_numpy(label).dtype == torch.int64
