"""Runs in several processes against runs in one: the same results, each item done once."""

import json
import os
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from safetensors import safe_open

from tests.helpers.many import together
from tests.helpers.tiny_models import save_tiny_pipeline

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return save_tiny_pipeline(tmp_path_factory.mktemp("toy"))


def options(toy: Path, folder: Path, *more: str) -> list[str]:
    return [
        *("backbone=local", f"backbone.path_or_name={toy}", "backbone.name=toy", "trainer.accelerator=cpu"),
        *("+trainer.enable_progress_bar=false", f"output_dir={folder / 'run'}", *more),
    ]


def correspondence(toy: Path, folder: Path, *more: str) -> list[str]:
    fast = [
        "method.fit.steps=2",
        "method.fit.rounds=1",
        "method.fit.pack_size=5",
        "method.transfer.num_crops=2",
    ]
    where = [f"embeddings_root={folder / 'embeddings'}", "num_figures=1", "num_heatmaps=1", "report=false"]
    return options(toy, folder, *fast, *where, *more)


def run(entry: str, overrides: list[str], folder: Path, size: int) -> Path:
    assert together(entry, overrides, folder, size) == [0] * size, (folder / "log0.txt").read_text()
    return folder / "run"


def embeddings(folder: Path) -> dict[tuple[str, int], tuple[torch.Tensor, torch.Tensor]]:
    """All that a store's shards hold; fails where an item is there twice."""
    found = {}
    for path in sorted((folder / "embeddings").rglob("embeddings-*.safetensors")):
        with safe_open(path, "pt") as shard:
            items = [tuple(item) for item in json.loads(shard.metadata()["items"])]
            losses = shard.get_tensor("losses").split(shard.get_tensor("loss_counts").tolist())
            for item, row, curve in zip(items, shard.get_tensor("embeddings"), losses, strict=True):
                assert item not in found
                found[item] = (row, curve)
    return found


def predictions(folder: Path) -> list[dict[str, object]]:
    rows = pq.ParquetDataset(folder / "run" / "predictions").read().to_pylist()
    keys = Counter((row["method"], row["seed"], row["pair_id"], row["keypoint"]) for row in rows)
    assert set(keys.values()) == {1}
    return sorted(rows, key=lambda row: (row["method"], row["seed"], row["pair_id"], row["keypoint"]))


def written(folder: Path) -> dict[str, object]:
    """Records and comparisons."""
    return {
        name: json.loads((folder / "run" / name).read_text()) for name in ("metrics.json", "comparisons.json")
    }


def test_correspondence(toy, tmp_path):
    for size in (1, 2, 3):
        folder = tmp_path / str(size)
        run("eval", correspondence(toy, folder, "data.num_pairs=3", "baselines=[dift]"), folder, size)
        fitted, found = embeddings(folder), predictions(folder)
        if size == 1:
            alone = (fitted, found, written(folder))
            assert len(fitted) % 5  # the last pack is shorter
            continue
        assert fitted.keys() == alone[0].keys()
        for item, (row, curve) in fitted.items():
            assert torch.equal(row, alone[0][item][0])
            assert torch.equal(curve, alone[0][item][1])
        assert found == alone[1]
        assert written(folder) == alone[2]
        summary = (folder / "run" / "summary-correspondence.md").read_text()
        assert f"{size} processes" in summary
        assert list((folder / "run" / "figures").rglob("*.png"))
        # who did what differs, and at least two had something to do
        writers = {path.stem.split("-")[2] for path in (folder / "embeddings").rglob("embeddings-*")}
        assert len(writers) > 1


@pytest.mark.slow
def test_torchrun_on_two_nodes(toy, tmp_path):
    """The documented command; two launchers on one machine are two nodes to it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    few = ["data.num_pairs=3", "baselines=[]"]
    launched = []
    for node in range(2):
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", f"--node-rank={node}"]
        torchrun += ["--nproc-per-node=2", "--master-addr=127.0.0.1", f"--master-port={port}", "eval.py"]
        overrides = correspondence(toy, tmp_path / "nodes", *few, "trainer=ddp", "trainer.devices=2")
        one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
        launched.append(
            subprocess.Popen([*torchrun, *overrides, "trainer.num_nodes=2"], env=one_thread, cwd=ROOT)
        )
    assert [process.wait(300) for process in launched] == [0, 0]
    run("eval", correspondence(toy, tmp_path / "alone", *few), tmp_path / "alone", 1)
    assert predictions(tmp_path / "nodes") == predictions(tmp_path / "alone")
    assert written(tmp_path / "nodes") == written(tmp_path / "alone")
    assert "4 processes" in (tmp_path / "nodes" / "run" / "summary-correspondence.md").read_text()


def test_fewer_items_than_processes(toy, tmp_path):
    for size in (1, 3):
        folder = tmp_path / str(size)
        few = ["data.num_pairs=1", "baselines=[]", "method.fit.pack_size=64"]  # one pack, one pair
        run("eval", correspondence(toy, folder, *few), folder, size)
    assert predictions(tmp_path / "1") == predictions(tmp_path / "3")
    assert written(tmp_path / "1") == written(tmp_path / "3")


def test_fits_by_train_are_found_by_eval(toy, tmp_path):
    fast = [
        o for o in correspondence(toy, tmp_path, "data.num_pairs=2") if not o.startswith(("num_", "report"))
    ]
    run("train", fast, tmp_path, 3)
    fitted = embeddings(tmp_path)
    folder = tmp_path / "eval"
    overrides = correspondence(toy, tmp_path, "data.num_pairs=2", "baselines=[]")
    run("eval", overrides, folder.parent, 2)
    assert embeddings(tmp_path).keys() == fitted.keys()
    summary = (tmp_path / "run" / "summary-correspondence.md").read_text()
    assert f"| fit prompt_fit, seed 0, prompts | {len(fitted)} | {len(fitted)} | 0 | 0 |" in summary


def test_segmentation(toy, tmp_path):
    masks = {}
    for size in (1, 2, 3):
        folder = tmp_path / str(size)
        few = [
            "task=segmentation",
            "data.num_images=5",
            "batch_size=2",
            "num_figures=1",
            "protocols=[global]",
        ]
        done = run("eval", options(toy, folder, *few), folder, size)
        masks[size] = {
            str(p.relative_to(done)): p.read_bytes() for p in sorted((done / "masks").rglob("*.png"))
        }
        assert len(masks[size]) == 15
        assert masks[size] == masks[1]
        assert written(folder) == written(tmp_path / "1")


def test_propagation(toy, tmp_path):
    for size in (1, 2):
        folder = tmp_path / str(size)
        few = ["task=propagation", "data.num_pairs=3", "baselines=[copy_label]", "num_figures=1"]
        run("eval", options(toy, folder, *few), folder, size)
    assert written(tmp_path / "1") == written(tmp_path / "2")
