"""The entry points' work from configuration to run folder, on a real pipeline at toy size."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from diffcorr.config import compose
from diffcorr.data.partworld import PartWorldPairs, PartWorldSegmentation
from diffcorr.errors import DataError, DiffcorrError, StoreError, UnknownNameError
from diffcorr.metrics import POINT_PROTOCOLS, match_points, pair_columns
from diffcorr.runs.correspondence import correspondence_records
from diffcorr.runs.evaluate import evaluate
from diffcorr.runs.train import fit
from diffcorr.types import PointPrediction
from tests.helpers.protocol_reference import make_pair
from tests.helpers.tiny_models import save_tiny_pipeline

KEYS = {"task", "method", "backbone", "dataset", "split", "protocol", "metric", "value", "num_items", "seed"}


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return save_tiny_pipeline(tmp_path_factory.mktemp("toy"))


def options(toy, folder, *more):
    quiet = ["+trainer.enable_progress_bar=false", "trainer.accelerator=cpu"]
    model = ["backbone=local", f"backbone.path_or_name={toy}", "backbone.name=toy"]
    return [*model, *quiet, f"output_dir={folder}", *more]


def correspondence(toy, folder, *more):
    fast = ["data.num_pairs=2", "method.fit.steps=2", "method.fit.rounds=1", "method.transfer.num_crops=4"]
    where = [f"embeddings_root={folder.parent}/embeddings", "num_figures=1", "num_heatmaps=1", "report=false"]
    return compose("eval", options(toy, folder, *fast, *where, *more))


def test_correspondence_leaves_a_complete_run_folder(toy, tmp_path):
    run = tmp_path / "run"
    evaluate(correspondence(toy, run, "seeds=[0,1]", "report=true"))
    records = json.loads((run / "metrics.json").read_text())
    assert all(set(r) >= KEYS for r in records)
    overall = [r for r in records if "group" not in r and r["metric"] == "pck@0.10"]
    methods = {"prompt_fit", "dift", "colour_nn", "copy_position", "chance"}
    assert {(r["method"], r["seed"]) for r in overall} == {(m, s) for m in methods for s in (0, 1)}
    assert {r["protocol"] for r in records} == {"standard"}
    comparisons = json.loads((run / "comparisons.json").read_text())
    assert {c["against"] for c in comparisons} == methods - {"prompt_fit"}
    assert all(c["interval95"][0] <= c["difference"] <= c["interval95"][1] for c in comparisons)
    assert (run / "config-correspondence.yaml").exists()
    assert (run / "report.md").read_text().count("prompt_fit") == 1
    for name in ("scores", "matches", "heatmaps"):
        assert list((run / "figures").rglob(f"*{name}*"))
    assert {p.name for p in (run / "report").iterdir()} == {
        *("report.md", "report.html", "protocols.md", "protocols.json", "figures")
    }
    (chapter,) = json.loads((run / "report" / "protocols.json").read_text())["data"]
    stored = {(row["method"], row["protocol"]) for row in chapter["scores"]}
    assert stored == {(m, p) for m in methods for p in POINT_PROTOCOLS}
    rounds = pq.ParquetDataset(run / "predictions").read(["method", "round_points"]).to_pylist()
    assert {len(row["round_points"]) for row in rounds if row["method"] == "prompt_fit"} == {1}

    # an independent PCK from the stored rows
    table = pq.ParquetDataset(run / "predictions").read().to_pylist()
    pairs = PartWorldPairs("test", num_pairs=2).pairs
    for record in overall:
        rows = {
            (r["pair_id"], r["keypoint"]): (r["x"], r["y"])
            for r in table
            if r["method"] == record["method"] and r["seed"] == record["seed"]
        }
        shares = []
        for pair in pairs:
            x0, y0, x1, y1 = pair.target_bbox
            limit = 0.1 * max(x1 - x0, y1 - y0)
            hits = [
                np.hypot(*np.subtract(rows[pair.pair_id, k], p)) <= limit
                for k, p in zip(pair.keypoints, pair.target_points, strict=True)
            ]
            shares.append(np.mean(hits))
        assert record["value"] == pytest.approx(100 * np.mean(shares))


def test_runs_with_other_settings_share_a_folder(toy, tmp_path, caplog):
    """Predictions of both stay; the scores are those of the last, also where nothing was predicted."""
    caplog.set_level("INFO", logger="diffcorr")
    run = tmp_path / "run"
    found = {}
    for alone in ("method.ensemble=1", "method.ensemble=2", "method.ensemble=1"):
        settings = ["method=dift", "baselines=[dift]", "report=true", alone]
        evaluate(compose("eval", options(toy, run, "data.num_pairs=2", "num_figures=0", *settings)))
        records = json.loads((run / "metrics.json").read_text())
        values = {r["metric"]: r["value"] for r in records if "group" not in r}
        (chapter,) = json.loads((run / "report" / "protocols.json").read_text())["data"]
        for row in chapter["scores"]:
            if row["protocol"] == "standard":
                assert row["value"] == pytest.approx(values[row["metric"]], abs=0.01)
        (stored,) = chapter["predictions"]
        found.setdefault(alone, []).append((stored["config_hash"], values))
    first, again = found["method.ensemble=1"]
    assert first == again
    assert first[0] != found["method.ensemble=2"][0][0]
    assert stored["superseded"] == [found["method.ensemble=2"][0][0]]
    assert caplog.text.count("2 to predict") == 2
    assert "another of that name ran already, left out" in caplog.text
    assert "the newest of 2 configurations, counts" in caplog.text


@pytest.mark.parametrize(
    "change", ["backbone.image_size=64", "backbone.paper_layers=[4]", "backbone.dtype=bfloat16"]
)
def test_another_setting_of_the_model_is_another_result(toy, tmp_path, caplog, change):
    """Neither prompts nor points that the same weights gave otherwise are taken for it."""
    caplog.set_level("INFO", logger="diffcorr")
    words = ["baselines=[]", "method.fit.layers=paper", "data.num_pairs=1", "num_figures=0", "num_heatmaps=0"]
    sizes = []
    for more in ([], [change], []):
        caplog.clear()
        evaluate(correspondence(toy, tmp_path / "run", *words, *more))
        told = [r.getMessage() for r in caplog.records if "to fit" in r.getMessage()]
        sizes.append(int(told[0].split()[-3]) if told else 0)
    assert sizes[0] == sizes[1] > 0  # fitted anew
    assert sizes[2] == 0


@pytest.mark.parametrize("precision", ["16-mixed"])
def test_a_precision_that_mixes_prompts_is_refused(toy, tmp_path, precision):
    with pytest.raises(DiffcorrError, match="expected a precision that keeps prompts apart, found 16-mixed"):
        evaluate(correspondence(toy, tmp_path / "run", f"trainer.precision={precision}"))


def test_a_start_with_a_wrong_option_does_not_spoil_the_folder(toy, tmp_path, caplog):
    few = options(toy, tmp_path, "method=chance", "baselines=[]", "report=true", "num_figures=0")
    with pytest.raises(DataError, match="num_pairs of 0 or more"):
        evaluate(compose("eval", [*few, "data.num_pairs=-1"]))
    evaluate(compose("eval", [*few, "data.num_pairs=2"]))
    assert "one of its configurations are left out: expected num_pairs of 0" in caplog.text
    assert (tmp_path / "report" / "protocols.json").exists()


def test_a_second_run_fits_and_predicts_nothing_again(toy, tmp_path, caplog):
    caplog.set_level("INFO", logger="diffcorr")
    fit(
        compose(
            "train",
            options(
                toy,
                tmp_path / "fit",
                *["data.num_pairs=2", "method.fit.steps=2", "method.fit.rounds=1"],
                f"embeddings_root={tmp_path}/embeddings",
            ),
        )
    )
    assert "0 stored" in caplog.text
    caplog.clear()
    evaluate(correspondence(toy, tmp_path / "run", "baselines=[]"))
    assert " 0 to fit" in caplog.text
    first = (tmp_path / "run" / "metrics.json").read_text()
    caplog.clear()
    evaluate(correspondence(toy, tmp_path / "run", "baselines=[]"))
    assert "2 pairs stored, 0 to predict" in caplog.text
    assert (tmp_path / "run" / "metrics.json").read_text() == first


@pytest.mark.parametrize(
    ("protocol", "bird", "cat", "turned"),
    [
        # bird: 1 of 1 and 0 of 3 right, cat: 2 of 2; the second bird and the cat are turned
        ("standard", (1 + 0) / 2, 1, (0 + 1) / 2),
        ("per_point", 1 / 4, 1, 2 / 5),
        ("per_category", 1 / 4, 1, (0 / 3 + 2 / 2) / 2),
        ("geoaware", (1 + 0) / 2, 1, (0 + 1) / 2),
    ],
)
def test_groups_are_averaged_as_their_protocol_averages(protocol, bird, cat, turned):
    pairs, predictions = [], []
    for number, (category, right, wrong) in enumerate((("bird", 1, 0), ("bird", 0, 3), ("cat", 2, 0))):
        names = ("a", "b", "c")[: right + wrong]
        points = tuple((10.0 * n, 20.0) for n in range(len(names)))
        changes = {"category": category, "keypoints": names, "tags": {"turned": int(number > 0)}}
        pair = make_pair(number, source_points=points, target_points=points, **changes)
        pairs.append(pair)
        for n, (name, (x, y)) in enumerate(zip(names, points, strict=True)):
            predictions.append(PointPrediction(pair.pair_id, name, "", x + 500 * (n >= right), y, 1.0))
    data = SimpleNamespace(name="toy", split="test", pairs=pairs)
    matched = match_points(pair_columns(pairs), predictions)
    records = correspondence_records(matched, POINT_PROTOCOLS[protocol], "m", "b", data, 0)
    found = {r.extra["group"]: r for r in records if r.extra and r.metric == "pck@0.10"}
    assert {group: r.value for group, r in found.items()} == {
        "category=bird": pytest.approx(100 * bird),
        "category=cat": pytest.approx(100 * cat),
        "turned=0": pytest.approx(100),
        "turned=1": pytest.approx(100 * turned),
    }
    assert [found[group].num_items for group in ("category=bird", "category=cat", "turned=1")] == [2, 1, 2]
    assert {r.extra["average"] for r in found.values()} == {POINT_PROTOCOLS[protocol].average}


def test_segmentation_leaves_a_complete_run_folder(toy, tmp_path):
    run = tmp_path / "run"
    evaluate(compose("eval", options(toy, run, "task=segmentation", "data.num_images=3", "num_figures=2")))
    records = json.loads((run / "metrics.json").read_text())
    methods = {"diffseg", "kmeans_pixels", "one_segment"}
    assert {r["method"] for r in records} == methods
    assert {r["metric"] for r in records} == {"miou", "accuracy", "iou"}
    comparisons = json.loads((run / "comparisons.json").read_text())
    assert {c["against"] for c in comparisons} == methods - {"diffseg"}
    assert len(list((run / "figures" / "segmentation").glob("*.png"))) == 3
    # one segment: the accuracy is the share of the most frequent class of each image
    data = PartWorldSegmentation("test", 3)
    shares = [np.unique(data[i]["label"], return_counts=True)[1].max() for i in range(3)]
    (accuracy,) = [r["value"] for r in records if r["method"] == "one_segment" and r["metric"] == "accuracy"]
    assert accuracy == pytest.approx(100 * sum(shares) / (3 * 128 * 128))
    masks = list((run / "masks" / "one_segment").rglob("*.png"))
    assert len(masks) == 3
    assert {Image.open(m).size for m in masks} == {(128, 128)}


def test_samples_and_word_maps_are_drawn(toy, tmp_path):
    few = ["num_samples=2", "num_word_maps=1", "sampling_steps=2", "num_draws=1"]
    evaluate(compose("eval", options(toy, tmp_path, "task=samples", *few)))
    assert (tmp_path / "figures" / "samples.png").exists()
    assert len(list((tmp_path / "figures" / "words").glob("*.png"))) == 1


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        (["data.num_pairs=0"], DataError, "expected pairs in partworld"),
        (["data.split=tset"], UnknownNameError, "train, val, test"),
        (["method.fit.layers=[99]"], UnknownNameError, "unknown cross-attention layer of toy 99"),
        (["baselines=[nothing]"], UnknownNameError, "chance, colour_nn"),
        (["backbone.path_or_name=/nonexistent/model"], UnknownNameError, "unknown backbone"),
        (["task=correspondence", "output_dir=/proc/denied"], StoreError, "/proc/denied"),
    ],
)
def test_bad_input_is_one_line(toy, tmp_path, more, error, message):
    with pytest.raises(error, match=message) as caught:
        evaluate(correspondence(toy, tmp_path / "run", *more))
    assert "\n" not in str(caught.value)


def test_embeddings_of_another_fit_are_refused(toy, tmp_path):
    folder = f"embeddings={tmp_path}/mine"
    evaluate(correspondence(toy, tmp_path / "a", folder, "baselines=[]"))
    with pytest.raises(StoreError) as caught:
        evaluate(correspondence(toy, tmp_path / "b", folder, "baselines=[]", "method.fit.sigma=0.2"))
    assert "\n" not in str(caught.value)
    other = save_tiny_pipeline(Path(tmp_path / "other"))
    config = other / "vae" / "config.json"
    config.write_text(config.read_text().replace('"scaling_factor": 0.18215', '"scaling_factor": 0.5'))
    with pytest.raises(DiffcorrError, match="backbone"):
        evaluate(correspondence(other, tmp_path / "c", folder, "baselines=[]"))
