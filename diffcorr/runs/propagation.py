"""Label maps carried from the source of each pair to its target: predict, store, score, draw."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

import torch
from omegaconf import DictConfig

from diffcorr.attention.base import AttentionVariant
from diffcorr.backbones.base import Backbone
from diffcorr.config import config_hash, instantiate
from diffcorr.correspondence.base import build_method
from diffcorr.errors import DataError, DiffcorrError
from diffcorr.joint import CarryModule, LabelCarrier
from diffcorr.metrics import paired_bootstrap
from diffcorr.metrics.functional.label_transfer import METRICS
from diffcorr.metrics.label_transfer import PROTOCOL, LabelTransfer
from diffcorr.reports import draw_segmentation_sheet, log_figure
from diffcorr.runs.common import Run, comparison, configured_methods, seeds_of
from diffcorr.stores.masks import MaskStore, StoredMasks
from diffcorr.stores.records import MetricRecord
from diffcorr.types import LabelledPairs

log = logging.getLogger(__name__)
TASK = "propagation"


def evaluate_propagation(config: DictConfig) -> list[MetricRecord]:
    """Run the configured carrier and its baselines on the configured pairs, for every seed.

    Leaves in the run folder: the targets' label maps (``labels/``, by pair id), ``metrics.json``,
    ``comparisons.json`` and figures.

    Raises:
        DataError: the data set has no pairs, or no label maps.
    """
    with Run(config) as run:
        return _evaluate(run)


def _evaluate(run: Run) -> list[MetricRecord]:
    config = run.config
    data = instantiate(config.data)
    if not isinstance(data, LabelledPairs) or not data.pairs:
        raise DataError(
            f"expected pairs with label maps, found none in {data.name} ({data.split}); choose such data, as "
            "data=partworld_pairs"
        )
    backbone = run.backbone()
    build = partial(_build, backbone=backbone, variant=run.variant())
    store = MaskStore(run.folder / "labels", on_duplicate="replace")
    scores: dict[str, list[LabelTransfer]] = {}
    records: list[MetricRecord] = []
    for seed in seeds_of(config):
        for node, carrier in configured_methods(config, seed, build):
            labels = _predict(run, node, carrier, backbone, data, store, seed)
            if not run.processes.is_main:
                continue
            metric = LabelTransfer()
            for place, pair in enumerate(data.pairs):
                truth = torch.from_numpy(data.label(pair.target_id))
                metric.update(torch.from_numpy(labels[pair.pair_id]), truth, place)
            records = run.keep(_records(metric, carrier.name, backbone.name, data, seed))
            scores.setdefault(carrier.name, []).append(metric)
            if seed == seeds_of(config)[0]:
                _draw(run, carrier.name, labels, data, metric)
    if run.processes.is_main:
        _compare(run, scores, data)
    return records


def _build(factory: Any, backbone: Backbone, variant: AttentionVariant) -> LabelCarrier:
    """The carrier.

    Raises:
        DiffcorrError: the method is for another task.
    """
    carrier: object = build_method(factory, backbone, variant) if callable(factory) else factory
    if not isinstance(carrier, LabelCarrier):
        raise DiffcorrError(
            f"expected a method that carries label maps, found {getattr(carrier, 'name', carrier)!r}: choose "
            "method=carry_features, carry_segments or copy_label"
        )
    return carrier


def _predict(
    run: Run,
    node: DictConfig,
    carrier: LabelCarrier,
    backbone: Backbone,
    data: LabelledPairs,
    store: MaskStore,
    seed: int,
) -> StoredMasks:
    about = {"method": node, "backbone": backbone.fingerprint, "precision": run.config.trainer.precision}
    identity = config_hash(about)
    pair_ids = [pair.pair_id for pair in data.pairs]
    kept = StoredMasks(store, pair_ids, carrier.name, seed, identity)
    lacking = set(run.processes.tell(lambda: kept.missing))
    todo = [pair for pair in data.pairs if pair.pair_id in lacking]
    log.info(
        "%s, seed %d: %d pairs stored, %d to predict",
        *(carrier.name, seed, len(data.pairs) - len(todo), len(todo)),
    )
    add = partial(store.add, method=carrier.name, seed=seed, config_hash=identity)
    module = CarryModule(carrier, data, todo, lambda pair_id, label: add(pair_id, mask=label), run.processes)
    with run.stage("predict", carrier.name, "pairs", len(data.pairs), len(todo), seed, identity):
        if todo:
            run.trainer().predict(module, return_predictions=False)
    return kept


def _records(
    metric: LabelTransfer, name: str, backbone: str, data: LabelledPairs, seed: int
) -> list[MetricRecord]:
    """The overall scores, and those of every category."""
    about = (TASK, name, backbone, data.name, data.split, PROTOCOL)
    scores_N3 = metric.per_pair()[1]
    groups: dict[str, list[int]] = {}
    for place, pair in enumerate(data.pairs):
        groups.setdefault(f"category={pair.category}", []).append(place)
    rows: list[tuple[dict[str, str], torch.Tensor]] = [({}, scores_N3)]
    rows += [({"group": group}, scores_N3[places]) for group, places in groups.items()]
    return [
        MetricRecord(*about, metric_name, 100 * float(value), len(part), seed, extra)
        for extra, part in rows
        for metric_name, value in zip(METRICS, part.mean(0), strict=True)
    ]


def _compare(run: Run, scores: dict[str, list[LabelTransfer]], data: LabelledPairs) -> None:
    """Differences of the carrier to its baselines: each pair's mean over seeds, bootstrapped over pairs."""
    items = {name: torch.stack([m.per_pair()[1] for m in ms]).mean(0).numpy() for name, ms in scores.items()}
    main = next(iter(items))
    rows = []
    for name in items:
        for column, metric in enumerate(METRICS):
            if name != main:
                interval = paired_bootstrap(items[main][:, column], items[name][:, column]).times(100)
                rows.append(
                    comparison(*(PROTOCOL, TASK, data.name, main, name, metric, interval, len(scores[main])))
                )
    run.keep_comparisons(rows)


def _draw(run: Run, name: str, labels: StoredMasks, data: LabelledPairs, metric: LabelTransfer) -> None:
    """The first pairs: each source with its own label map, then its target with what was carried."""
    loggers = [run.loggers] if run.loggers else []
    values = metric.per_pair()[1]
    for start in range(0, min(run.config.num_figures, len(data.pairs)), 4):
        pairs = list(enumerate(data.pairs))[start : min(start + 4, run.config.num_figures)]
        images, maps, truths, captions = [], [], [], []
        for place, pair in pairs:
            source, target = data.label(pair.source_id), data.label(pair.target_id)
            images += [data.image(pair.source_id), data.image(pair.target_id)]
            maps += [source, labels[pair.pair_id]]
            truths += [source, target]
            told = ", ".join(
                f"{key} {100 * float(v):.0f}" for key, v in zip(METRICS, values[place], strict=True)
            )
            captions += ["source, annotated", f"target: {told} ({PROTOCOL})"]
        figure = draw_segmentation_sheet(
            images,
            maps,
            truths,
            data.label_names,
            ("image", "label map", "ground truth"),
            f"{name} on {data.name} ({data.split})",
            captions,
            segment_names=data.label_names,
        )
        log_figure(loggers, f"propagation/{name}-{1 + start // 4}", figure, None, run.figures)
