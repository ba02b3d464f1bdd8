"""Runs that are killed, stopped or fed with what cannot be read lose nothing that was done."""

import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.kill import kill_again_and_again, results
from diffcorr.stores.predictions import read_predictions
from tests.helpers.many import CONTEXT, start, together
from tests.helpers.tiny_models import save_tiny_pipeline

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    return save_tiny_pipeline(tmp_path_factory.mktemp("toy"))


def options(toy: Path, folder: Path, *more: str) -> list[str]:
    return [
        *("backbone=local", f"backbone.path_or_name={toy}", "backbone.name=toy", "trainer.accelerator=cpu"),
        *("+trainer.enable_progress_bar=false", f"output_dir={folder / 'run'}"),
        *(f"embeddings_root={folder / 'embeddings'}", "num_figures=0", "num_heatmaps=0", "report=false"),
        *(
            "method.fit.steps=2",
            "method.fit.rounds=1",
            "method.fit.pack_size=4",
            "method.transfer.num_crops=2",
        ),
        *more,
    ]


class Run:
    """An entry point in a process of its own."""

    def __init__(self, overrides: list[str], folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.process = start("eval", overrides, folder / "log.txt")
        self.pid = self.process.pid

    def wait(self, timeout: float) -> int | None:
        self.process.join(timeout)
        return self.process.exitcode


def test_runs_killed_at_five_moments_give_what_an_undisturbed_one_gives(toy, tmp_path):
    def begin(folder: Path) -> Run:
        return Run(options(toy, folder, "data.num_pairs=2", "baselines=[dift]"), folder)

    warm = CONTEXT.Process(target=int)  # the imports are no part of a run's life here
    warm.start()
    warm.join()
    told = []
    rng = random.Random(0)
    found = kill_again_and_again(begin, lambda run: run.pid, tmp_path, 5, rng, told.append)
    assert len(found["killed_after"]) == 5
    assert found["completed"] >= 1
    assert {"metrics.json", "comparisons.json", "predictions"} < results(tmp_path / "alone").keys()


def test_sigterm_stops_a_run_at_once_and_keeps_what_is_done(toy, tmp_path):
    many = ["method=colour_nn", "baselines=[]", "data.num_pairs=250"]
    run = Run([o for o in options(toy, tmp_path, *many) if not o.startswith("method.")], tmp_path)
    predictions = tmp_path / "run" / "predictions"
    while not (predictions.exists() and any(predictions.glob("predictions-*"))):
        assert run.wait(0.01) is None, (tmp_path / "log.txt").read_text()
    os.kill(run.pid, signal.SIGTERM)
    assert run.wait(30) == 143
    done = set(read_predictions(predictions)["pair_id"].to_pylist())
    assert 0 < len(done) < 250
    summary = (tmp_path / "run" / "summary-correspondence.md").read_text()
    assert "stopped (SIGTERM); the same command goes on" in summary


def pictures(folder: Path) -> Path:
    """Three pictures, of which the last breaks off in its pixels, and a pair of each two."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in "abc":
        Image.fromarray(rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)).save(folder / f"{name}.jpg")
    broken = folder / "c.jpg"
    broken.write_bytes(broken.read_bytes()[:-400])
    rows = [f"{s}.jpg,{t}.jpg,{x},20,{x + 3},22" for s, t in ("ab", "bc", "ca") for x in (10, 30)]
    head = "source,target,source_x,source_y,target_x,target_y"
    (folder / "pairs.csv").write_text("\n".join([head, *rows]) + "\n")
    return folder


@pytest.mark.parametrize("size", [1, 2])
def test_what_cannot_be_read_is_recorded_and_the_rest_is_scored(toy, tmp_path, size):
    own = ["data=own_pairs", f"data.root={pictures(tmp_path / 'own')}", "data.name=own", "baselines=[dift]"]
    assert together("eval", options(toy, tmp_path, *own), tmp_path, size) == [0] * size
    lines = [json.loads(line) for line in (tmp_path / "run" / "failures.jsonl").read_text().splitlines()]
    stages = Counter(line["stage"] for line in lines)
    assert stages == {
        "fit prompt_fit, seed 0, prompts": 2,  # both points of c
        "predict prompt_fit, seed 0, pairs": 2,
        "predict dift, seed 0, pairs": 2,
    }
    assert all("c.jpg" in line["reason"] and "\n" not in line["reason"] for line in lines)
    records = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert {(r["method"], r["num_items"], r["num_asked"]) for r in records} == {
        *(("prompt_fit", 1, 3), ("dift", 1, 3))
    }
    assert "- failed: 6 items" in (tmp_path / "run" / "summary-correspondence.md").read_text()
    if size == 1:
        # mended and started again, the run fits and predicts what it lacked, and nothing is left to tell
        Image.new("RGB", (48, 40)).save(tmp_path / "own" / "c.jpg")
        again = [*options(toy, tmp_path, *own), "data.split=test"]
        assert together("eval", again, tmp_path, 1) == [0]
        records = json.loads((tmp_path / "run" / "metrics.json").read_text())
        assert {r["num_items"] for r in records} == {3}
        assert not any("num_asked" in r for r in records)
        assert (tmp_path / "run" / "failures.jsonl").read_text() == ""


@pytest.mark.parametrize("size", [1, 2])
def test_on_error_raise_stops_at_once(toy, tmp_path, size):
    own = ["data=own_pairs", f"data.root={pictures(tmp_path / 'own')}", "data.name=own", "baselines=[]"]
    status = together("eval", options(toy, tmp_path, *own, "on_error=raise"), tmp_path, size)
    assert status == [1] * size
    log = (tmp_path / "log0.txt").read_text()
    assert "c.jpg" in log.splitlines()[-1]
    assert "Traceback" not in log
    assert not (tmp_path / "run" / "metrics.json").exists()


def test_segmentation_leaves_out_what_cannot_be_read(toy, tmp_path):
    folder = pictures(tmp_path / "own")
    data = [
        "task=segmentation",
        "data=images_only",
        f"data.root={folder}",
        "data.name=own",
        "baselines=[one_segment]",
    ]
    common = [
        o
        for o in options(toy, tmp_path, *data)
        if not o.startswith(("method.", "embeddings", "num_h", "report"))
    ]
    assert together("eval", common, tmp_path, 2) == [0, 0]
    (line,) = (tmp_path / "run" / "failures.jsonl").read_text().splitlines()
    assert json.loads(line)["item"] == "image 2"
    assert len(list((tmp_path / "run" / "masks").rglob("*.png"))) == 4


@pytest.mark.slow
def test_the_command_line_launches_processes_that_can_be_killed(tmp_path):
    """``eval.py trainer=ddp`` as Lightning starts it, the main process or its child killed."""
    folder = tmp_path / "kill"
    command = ["-m", "benchmarks.kill", "--moments", "4", "--processes", "2", "--folder", str(folder)]
    done = subprocess.run([sys.executable, *command], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report = json.loads((folder / "kill.json").read_text())
    assert [len(task["killed_after"]) for task in report["tasks"].values()] == [2, 2]
