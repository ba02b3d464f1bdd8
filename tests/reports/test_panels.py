"""Panels of Weights & Biases, offline: what lands in the files that would be sent."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from lightning.pytorch.loggers import CSVLogger
from matplotlib.figure import Figure

from diffcorr.config import wandb_logger
from diffcorr.metrics import score_points
from diffcorr.runs.panels import log_panels
from tests.helpers.protocol_reference import random_pairs

PAIRS, PREDICTIONS = random_pairs(5)


def test_tables_with_pictures_and_curves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    logger = wandb_logger(str(tmp_path), group="sweep")
    metric = score_points(PREDICTIONS, PAIRS)
    figure = Figure(figsize=(1, 1))
    drawn = {PAIRS[1].pair_id: [figure, figure], PAIRS[3].pair_id: [figure]}
    data = SimpleNamespace(name="toy", split="val", pairs=PAIRS, image=None)
    try:
        log_panels([logger], "packed", data, PREDICTIONS, metric.protocol, drawn)
        assert logger.experiment.group == "sweep"
    finally:
        logger.experiment.finish()
    tables = [json.loads(path.read_text()) for path in tmp_path.rglob("*.table.json")]
    (pairs,) = [table for table in tables if "pair" in table["columns"]]
    assert pairs["columns"] == [
        *("pair", "category", "keypoints", "pck@0.10 (standard)", "pck@0.05 (standard)", "matches", "heatmap")
    ]
    shares = 100 * metric.per_pair()[1]
    for row, place in zip(pairs["data"], (1, 3), strict=True):
        assert row[:3] == [PAIRS[place].pair_id, PAIRS[place].category, len(PAIRS[place].keypoints)]
        assert row[3:5] == pytest.approx(shares[place].tolist())
        assert row[5] == "Image"  # the pixels go into the table's artifact
    assert pairs["data"][1][6] is None
    (curve,) = [table for table in tables if table is not pairs]
    assert curve["columns"] == ["alpha", "PCK in %, standard"]
    at_tenth = {round(alpha, 3): value for alpha, value in curve["data"]}[0.1]
    assert at_tenth == pytest.approx(100 * metric.compute()["pck@0.10"].item())


def test_other_loggers_get_none(tmp_path: Path) -> None:
    data = SimpleNamespace(name="toy", split="val", pairs=PAIRS, image=None)
    protocol = score_points(PREDICTIONS, PAIRS).protocol
    log_panels([CSVLogger(tmp_path)], "packed", data, PREDICTIONS, protocol, {})
    assert not list(tmp_path.rglob("*.json"))
