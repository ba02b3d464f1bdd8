"""The runs of the papers' tables, on tiny data sets in the true layouts and a toy pipeline."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from diffcorr.config import compose, config_folder
from diffcorr.errors import UnknownNameError
from diffcorr.metrics.protocols import POINT_PROTOCOLS
from diffcorr.runs.evaluate import evaluate
from tests.helpers import make_datasets
from tests.helpers.tiny_models import save_tiny_pipeline

TABLES = {
    "hedlin_spair": (make_datasets.spair, {"legacy_hedlin_spair", "standard", "per_point", "per_category"}),
    "hedlin_willow": (make_datasets.pf_willow, {"legacy_hedlin_willow", "standard", "per_point"}),
    "hedlin_cub": (make_datasets.cub, {"legacy_hedlin_cub", "standard", "per_point"}),
}


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_pipeline(tmp_path_factory.mktemp("toy"))


def quick(toy: Path, folder: Path) -> list[str]:
    """The same code on a toy model, in seconds."""
    return [
        f"backbone.path_or_name={toy}",
        "backbone.paper_layers=null",
        "trainer.accelerator=cpu",
        "+trainer.enable_progress_bar=false",
        f"output_dir={folder}",
        f"embeddings_root={folder.parent}/embeddings",
        "method.fit.steps=1",
        "method.fit.rounds=1",
        "method.fit.loss_resolution=8",
        "method.fit.bank_size=4",
        "method.transfer.num_crops=1",
        "num_figures=1",
        "num_heatmaps=1",
    ]


@pytest.mark.parametrize("name", TABLES)
def test_the_papers_settings(name: str) -> None:
    config = compose("eval", [f"experiment={name}", "data.root=nowhere"])
    assert config.backbone.path_or_name == "sd14"
    assert list(config.backbone.paper_layers) == [7, 8, 9, 10]
    assert (config.method.fit.steps, config.method.fit.rounds, config.method.transfer.num_crops) == (
        129,
        5,
        20,
    )
    assert config.data.split == "test"
    assert config.data.num_pairs is None
    assert {config.protocol.name, *config.protocols} == TABLES[name][1]
    # what to expect stands in the file with its protocol
    text = (config_folder() / "experiment" / f"{name}.yaml").read_text()
    assert config.protocol.name in text.partition("defaults:")[0]


@pytest.mark.parametrize("name", TABLES)
def test_a_table_runs_to_its_report(name: str, toy: Path, tmp_path: Path) -> None:
    write, protocols = TABLES[name]
    run = tmp_path / "run"
    classes = ["data.categories=[1,2]"] if name == "hedlin_cub" else []  # the tiny set has no third
    options = [f"experiment={name}", f"data.root={write(tmp_path)}", *classes, *quick(toy, run)]
    evaluate(compose("eval", options))
    records = json.loads((run / "metrics.json").read_text())
    overall = {(r["protocol"], r["metric"]): r for r in records if "group" not in r}
    expected = {(p, f"pck@{alpha:.2f}") for p in protocols for alpha in POINT_PROTOCOLS[p].alphas}
    assert set(overall) == expected
    assert all(r["method"] == "prompt_fit" and 0 <= r["value"] <= 100 for r in overall.values())
    # every protocol scored the one set of predictions
    table = pq.ParquetDataset(run / "predictions").read()
    assert len({r["num_items"] for r in overall.values()}) == 1
    assert len(set(zip(table["pair_id"].to_pylist(), table["keypoint"].to_pylist(), strict=True))) == len(
        table
    )
    report = (run / "report.md").read_text()
    assert all(f"({protocol})" in report for protocol in protocols)
    assert (run / "figures" / "scores.png").exists()


def test_reranking_fits_nothing_anew_and_draws_its_own_maps(
    toy: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="diffcorr")
    common = [
        "backbone=local",
        "data.num_pairs=1",
        *quick(toy, tmp_path / "run"),
        "protocols=[dift,standard]",
    ]
    evaluate(compose("eval", ["method=prompt_fit", "baselines=[]", *common]))
    (heatmap,) = (tmp_path / "run" / "figures" / "heatmaps").rglob("*.png")
    plain = heatmap.read_bytes()
    caplog.clear()
    config = ["method=prompt_fit_rerank", "baselines=[chance]", *common]
    evaluate(compose("eval", config))
    assert " 0 to fit" in caplog.text
    drawn = heatmap.read_bytes()
    assert drawn != plain
    heatmap.unlink()
    caplog.clear()
    evaluate(compose("eval", config))
    assert "prompt_fit_rerank, seed 0: 1 pairs stored, 0 to predict" in caplog.text
    assert heatmap.read_bytes() == drawn
    compared = json.loads((tmp_path / "run" / "comparisons.json").read_text())
    assert {(c["method"], c["protocol"]) for c in compared} == {
        ("prompt_fit_rerank", "standard"),
        ("prompt_fit_rerank", "dift"),
    }


def test_an_unknown_protocol_is_refused_before_anything_is_fitted(toy: Path, tmp_path: Path) -> None:
    config = compose("eval", ["backbone=local", *quick(toy, tmp_path / "run"), "protocols=[standart]"])
    with pytest.raises(UnknownNameError, match="unknown protocol 'standart'; known: "):
        evaluate(config)
    assert not (tmp_path / "embeddings").exists()
