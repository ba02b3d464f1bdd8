"""Per-layer, per-head and per-timestep scores of a fitted set: tables, figures and learned weights."""

from __future__ import annotations

import json
import logging
from math import nan
from typing import Any

from omegaconf import DictConfig
from rich.progress import track

from diffcorr.backbones.base import LayerSpec
from diffcorr.config import instantiate, run_metadata
from diffcorr.correspondence.diagnosis import Diagnosis, Place
from diffcorr.metrics import PointProtocol, score_points
from diffcorr.reports import draw_heat_table, log_figure, short_layer_name
from diffcorr.runs.common import ImagesById, Run, write_text
from diffcorr.runs.correspondence import fitted_method, load_pairs
from diffcorr.types import PairDataset

log = logging.getLogger(__name__)
ALL = "all heads"


def evaluate_diagnosis(config: DictConfig) -> list[dict[str, Any]]:
    """Read the configured method's embeddings everywhere, score each place, and learn weights.

    Leaves in the run folder: ``diagnosis.json`` (a row for each place), ``diagnosis.md``,
    ``weights.json`` for `WeightedAttention`, and two figures.

    Returns:
        The rows.

    Raises:
        DiffcorrError: the configured method fits no prompts.
    """
    with Run(config) as run:
        return _diagnose(run)


def _diagnose(run: Run) -> list[dict[str, Any]]:
    config = run.config
    data = load_pairs(config)
    protocol: PointProtocol = instantiate(config.protocol)
    method = fitted_method(run, data)
    if not run.processes.is_main:  # reading is one process's
        return []
    layers: LayerSpec = config.layers if isinstance(config.layers, str) else list(config.layers)
    diagnosis = Diagnosis(method, config.timesteps, layers, config.num_crops, config.num_noises)
    images = ImagesById(data)
    for pair in track(data.pairs, description="Reading"):
        diagnosis.add(pair, images[pair.target_id])
    rows = _rows(diagnosis, data, protocol)
    weights = diagnosis.weights()
    about = {**run_metadata(config.seed), "method": method.name, "backbone": method.backbone.name}
    about |= {"data": data.name, "split": data.split, "protocol": protocol.name, "pairs": len(data.pairs)}
    write_text(run.folder / "diagnosis.json", json.dumps({"about": about, "rows": rows}, indent=1) + "\n")
    write_text(run.folder / "weights.json", json.dumps({"about": about, "weights": weights}, indent=1) + "\n")
    _report(run, diagnosis, rows, about)
    return rows


def _rows(diagnosis: Diagnosis, data: PairDataset, protocol: PointProtocol) -> list[dict[str, Any]]:
    index = {layer.name: layer for layer in diagnosis.layers}
    rows = []
    for place, points in diagnosis.points.items():
        scores = score_points(points, data.pairs, protocol).compute()
        layer = index[place.layer]
        row: dict[str, Any] = {"timestep": place.timestep, "layer": layer.index, "name": layer.name}
        row |= {"downscale": layer.downscale, "head": place.head}
        rows.append(row | {name: round(100 * float(value), 3) for name, value in scores.items()})
    return rows


def _report(run: Run, diagnosis: Diagnosis, rows: list[dict[str, Any]], about: dict[str, Any]) -> None:
    metric = next(key for key in rows[0] if key.startswith("pck"))
    found = {Place(r["timestep"], r["name"], r["head"]): r[metric] for r in rows}
    names = [
        f"{layer.index}  {short_layer_name(layer.name)}  1/{layer.downscale}" for layer in diagnosis.layers
    ]
    levels = sorted(diagnosis.timesteps)
    heads = range(max(layer.num_heads for layer in diagnosis.layers))
    told = (
        f"{about['method']} on {about['data']} {about['split']}, {about['pairs']} pairs, seed {about['seed']}"
    )
    title = f"{metric} ({about['protocol']}), percent"
    by_level = [[found[Place(t, layer.name, None)] for t in levels] for layer in diagnosis.layers]
    by_head = [
        [
            found[Place(diagnosis.timestep, layer.name, None)],
            *(found.get(Place(diagnosis.timestep, layer.name, head), nan) for head in heads),
        ]
        for layer in diagnosis.layers
    ]
    tables = {
        "layers_timesteps": ([f"t {t}" for t in levels], by_level, f"mean over heads; {told}"),
        "layers_heads": ([ALL, *(f"head {h}" for h in heads)], by_head, f"t {diagnosis.timestep}; {told}"),
    }
    loggers = [run.loggers] if run.loggers else []
    text = [f"# Which layer, head and noise level carries the signal\n\n{title}: {told}.\n"]
    for name, (columns, values, note) in tables.items():
        figure = draw_heat_table(values, names, columns, title, note)
        log_figure(loggers, name, figure, None, run.figures)
        lines = [["layer", *columns], ["---", *["---:"] * len(columns)]]
        lines += [
            [n, *(f"{v:.1f}" if v == v else "" for v in row)] for n, row in zip(names, values, strict=True)
        ]
        text.append("".join(f"| {' | '.join(line)} |\n" for line in lines))
    write_text(run.folder / "diagnosis.md", "\n".join(text))
    log.info("results in %s\n%s", run.folder, "\n".join(text))
