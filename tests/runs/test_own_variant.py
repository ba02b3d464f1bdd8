"""A variant that somebody writes in a folder of their own runs through both entry points by config alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

VARIANT = """
from diffcorr.attention import AttentionVariant


class SharpestHead(AttentionVariant):
    def __init__(self, heads):
        self.heads = heads

    def __repr__(self):
        return f"SharpestHead({self.heads})"

    def __call__(self, read):
        return read.pick(read.probs)[:, : self.heads].amax(1)
"""
ROOT = Path(__file__).parents[2]
SMALL = ["data.num_pairs=1", "method.fit.rounds=1", "method.fit.steps=1", "method.transfer.num_crops=4"]


def run(program: str, folder: Path, *overrides: str) -> str:
    command = [sys.executable, str(ROOT / program), "--config-dir", str(folder), "attention=sharpest"]
    command += [*SMALL, f"output_dir={folder}/run", f"embeddings_root={folder}/embeddings", *overrides]
    environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_train_and_eval(tmp_path: Path) -> None:
    (tmp_path / "sharpest.py").write_text(VARIANT)
    (tmp_path / "attention").mkdir()
    (tmp_path / "attention" / "sharpest.yaml").write_text("_target_: sharpest.SharpestHead\nheads: 2\n")
    run("train.py", tmp_path)
    (fitted,) = (tmp_path / "embeddings").iterdir()
    shards = set(fitted.glob("*.safetensors"))
    assert shards
    said = run("eval.py", tmp_path, "baselines=[]", "report=false", "num_figures=0", "num_heatmaps=0")
    assert set(fitted.glob("*.safetensors")) == shards, "eval.py found what train.py had fitted"
    assert "0 to fit" in said
    records = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert "pck@0.10" in {record["metric"] for record in records}
