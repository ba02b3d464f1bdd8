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
from diffcorr.data.labels import LabelMap
from diffcorr.errors import DataError, DiffcorrError, ImageError
from diffcorr.joint import CarryModule, LabelCarrier
from diffcorr.metrics import paired_bootstrap
from diffcorr.metrics.functional.label_transfer import METRICS
from diffcorr.metrics.label_transfer import PROTOCOL, LabelTransfer
from diffcorr.reports import draw_segmentation_sheet, log_figure
from diffcorr.runs.common import Run, comparison, configured_methods, seeds_of
from diffcorr.runs.common_pairs import CommonPairs
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
    scores, num_pairs = _Scores(run, data, backbone.name), len(data.pairs)
    for seed in seeds_of(config):
        for node, carrier in configured_methods(config, seed, build):
            labels = _predict(run, node, carrier, backbone, data, store, seed)
            with run.stage("score", carrier.name, "pairs", num_pairs, num_pairs, seed):
                if run.processes.is_main:
                    scores.add(carrier.name, seed, labels)
            if run.processes.is_main and seed == seeds_of(config)[0]:
                _draw(run, carrier.name, labels, data, scores)
    if run.processes.is_main:
        _compare(run, scores, data)
    return scores.records


class _Scores:
    """The scores of all carriers and seeds, on the pairs that all of them could do.

    Attributes:
        common: the pairs that no carrier has failed on so far.
        names: of the carriers in the order in which they came.
        records: of the run folder.
    """

    def __init__(self, run: Run, data: LabelledPairs, backbone: str) -> None:
        self.run, self.data, self.backbone = run, data, backbone
        self.common = CommonPairs(data.pairs, run.folder)
        self.records: list[MetricRecord] = []
        self._rows: dict[tuple[str, int], dict[str, torch.Tensor]] = {}

    @property
    def names(self) -> list[str]:
        return list(dict.fromkeys(name for name, _ in self._rows))

    def add(self, name: str, seed: int, labels: StoredMasks) -> None:
        """Score a carrier; where it lacks pairs that others have, these are scored anew without them.

        A target whose own label map cannot be read fails, as those do that could not be carried.

        Raises:
            DiffcorrError: no pair is left.
        """
        missing, metric, done = set(labels.missing), LabelTransfer(), []
        for place, pair in enumerate(self.data.pairs):
            if pair.pair_id in missing:
                continue
            try:
                truth = torch.from_numpy(self.data.label(pair.target_id))
            except (ImageError, DataError) as error:
                self.run.failed(pair.pair_id, error)
                continue
            metric.update(torch.from_numpy(labels[pair.pair_id]), truth, place)
            done.append(pair.pair_id)
        to_score = self.common.add(name, seed, done)
        self._rows[name, seed] = dict(zip(done, metric.per_pair()[1], strict=True))
        for key in to_score:
            self.records = self.run.keep(self._records(*key))

    def values(self, name: str, seed: int | None = None) -> torch.Tensor:
        """Scores (N, 3) of the common pairs, with one seed or in the mean of all."""
        seeds = self.seeds(name) if seed is None else [seed]
        rows = [[self._rows[name, s][pair.pair_id] for pair in self.common.left] for s in seeds]
        return torch.stack([torch.stack(of_seed) for of_seed in rows]).mean(0)

    def seeds(self, name: str) -> list[int]:
        """Those that a carrier was scored with."""
        return [seed for known, seed in self._rows if known == name]

    def _records(self, name: str, seed: int) -> list[MetricRecord]:
        """The overall scores, and those of every category."""
        about = (TASK, name, self.backbone, self.data.name, self.data.split, PROTOCOL)
        scores_N3, note = self.values(name, seed), self.common.note
        groups: dict[str, list[int]] = {}
        for row, pair in enumerate(self.common.left):
            groups.setdefault(f"category={pair.category}", []).append(row)
        rows: list[tuple[dict[str, Any], torch.Tensor]] = [({}, scores_N3)]
        rows += [({"group": group}, scores_N3[members]) for group, members in groups.items()]
        return [
            MetricRecord(*about, metric_name, 100 * float(value), len(part), seed, {**extra, **note})
            for extra, part in rows
            for metric_name, value in zip(METRICS, part.mean(0), strict=True)
        ]


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
    about = {"method": node, "backbone": backbone.identity(), "precision": run.config.trainer.precision}
    identity = config_hash(about)
    pair_ids = [pair.pair_id for pair in data.pairs]
    kept = StoredMasks(store, pair_ids, carrier.name, seed, identity)
    lacking = set(run.processes.tell(lambda: kept.missing))
    todo = [pair for pair in data.pairs if pair.pair_id in lacking]
    log.info(
        "%s, seed %d: %d pairs stored, %d to predict",
        *(carrier.name, seed, len(data.pairs) - len(todo), len(todo)),
    )

    def keep(pair_id: str, label: LabelMap) -> None:
        store.add(pair_id, carrier.name, label, seed, identity)

    module = CarryModule(carrier, data, todo, keep, run.processes, run.failed)
    with run.stage("predict", carrier.name, "pairs", len(data.pairs), len(todo), seed, identity):
        if todo:
            run.trainer().predict(module, return_predictions=False)
    return kept


def _compare(run: Run, scores: _Scores, data: LabelledPairs) -> None:
    """Differences of the carrier to its baselines: each pair's mean over seeds, bootstrapped over pairs."""
    main, *others = scores.names
    own, rows = scores.values(main).numpy(), []
    for name in others:
        theirs = scores.values(name).numpy()
        for column, metric in enumerate(METRICS):
            interval = paired_bootstrap(own[:, column], theirs[:, column]).times(100)
            about = (PROTOCOL, TASK, data.name, main, name, metric)
            rows.append(comparison(*about, interval, len(scores.seeds(main))))
    run.keep_comparisons(rows)


def _draw(run: Run, name: str, labels: StoredMasks, data: LabelledPairs, scores: _Scores) -> None:
    """The first pairs: each source with its own label map, then its target with what was carried."""
    loggers = [run.loggers] if run.loggers else []
    values = scores.values(name, scores.seeds(name)[0])
    drawn = list(zip(scores.common.left, values, strict=True))[: run.config.num_figures]
    for start in range(0, len(drawn), 4):
        images, maps, truths, captions = [], [], [], []
        for pair, row in drawn[start : start + 4]:
            source, target = data.label(pair.source_id), data.label(pair.target_id)
            images += [data.image(pair.source_id), data.image(pair.target_id)]
            maps += [source, labels[pair.pair_id]]
            truths += [source, target]
            told = ", ".join(f"{key} {100 * float(v):.0f}" for key, v in zip(METRICS, row, strict=True))
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
