"""Correspondence from configuration to figures: fit what is missing, predict, store, score, report."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from matplotlib.figure import Figure
from omegaconf import DictConfig

from diffcorr.backbones.base import Backbone
from diffcorr.config import config_hash, instantiate
from diffcorr.correspondence import PromptFit, PromptFitModule, build_method
from diffcorr.correspondence.base import CorrespondenceMethod
from diffcorr.correspondence.module import check_precision
from diffcorr.correspondence.predict_module import PairPredictionModule
from diffcorr.errors import DataError, DiffcorrError
from diffcorr.metrics import (
    PCK,
    Matched,
    PointProtocol,
    breakdowns_of_pairs,
    compare_points,
    match_points,
    pair_columns,
    score_matched,
)
from diffcorr.metrics.scoring import FRESH
from diffcorr.reports import draw_heatmaps, draw_matches, log_figure
from diffcorr.runs.common import (
    ImagesById,
    Run,
    SomePairs,
    comparison,
    configured_methods,
    seeds_of,
)
from diffcorr.runs.common_pairs import CommonPairs
from diffcorr.runs.panels import log_panels
from diffcorr.runs.report import report_run
from diffcorr.runs.score import load_protocols
from diffcorr.stores.embeddings import EmbeddingStore
from diffcorr.stores.latents import LatentStore
from diffcorr.stores.predictions import PredictionStore
from diffcorr.stores.records import MetricRecord
from diffcorr.types import PairDataset, PointPrediction

log = logging.getLogger(__name__)
TASK = "correspondence"


def load_pairs(config: DictConfig) -> PairDataset:
    """The configured pairs.

    Raises:
        DataError: there are none.
    """
    data: PairDataset = instantiate(config.data)
    if not data.pairs:
        raise DataError(
            f"expected pairs in {data.name} ({data.split}), found none; check split and num_pairs"
        )
    return data


def with_store(method: PromptFit, config: DictConfig) -> PromptFit:
    """The method with its embeddings on disk.

    The folder is ``config.embeddings`` where given (an error if it holds those of another backbone or
    another fit); by default it is named after backbone and fit, so that runs find one another's work.
    """
    backbone = method.backbone
    precision = {"dtype": str(backbone.dtype), "precision": config.trainer.precision}
    fit_hash = config_hash({**method.identity(), **precision})
    folder = config.get("embeddings") or (
        Path(config.embeddings_root) / f"{backbone.name}-{backbone.fingerprint[:8]}-{fit_hash}"
    )
    method.embeddings = EmbeddingStore(folder, backbone.fingerprint, fit_hash)
    return method


def fitted_method(run: Run, data: PairDataset) -> PromptFit:
    """The configured method with every query of the pairs fitted, and its embeddings on disk.

    Raises:
        DiffcorrError: the configured method fits nothing.
    """
    method = build_method(instantiate(run.config.method), run.backbone(), run.variant())
    if not isinstance(method, PromptFit):
        raise DiffcorrError(
            f"expected a method that fits prompts, found {method.name}; use method=prompt_fit"
        )
    with_store(method, run.config)
    fit_missing(run, method, data)
    return method


def fit_missing(run: Run, method: PromptFit, data: PairDataset) -> None:
    """Fit every query of the pairs that the store does not have, each once, by all processes of the run."""
    check_precision(run.config.trainer.precision)
    queries = [query for pair in data.pairs for query in pair.queries()]
    prompts = method.prompts(queries)
    keys = run.processes.tell(lambda: [prompt.key for prompt in method.missing(queries)])
    absent = {(name, round) for name, round in keys}
    missing = [prompt for prompt in prompts if prompt.key in absent]
    total = len(prompts)
    log.info(
        "%d queries x %d rounds in %d prompts: %d stored, %d to fit",
        len({query.id for query in queries}),
        method.fit_config.rounds,
        total,
        total - len(missing),
        len(missing),
    )
    seed = method.fit_config.seed
    made = {"backbone": method.backbone.identity(), "precision": run.config.trainer.precision}
    key = config_hash({**method.identity(), **made})
    module = PromptFitModule(
        method.backbone,
        missing,
        ImagesById(data),
        method.fit_config,
        method.variant,
        method.embeddings,
        run.processes,
        run.failed,
    )
    with run.stage("fit", method.name, "prompts", total, len(missing), seed, key):
        if missing:
            run.trainer().fit(module)


def evaluate_correspondence(config: DictConfig) -> list[MetricRecord]:
    """Run the configured method and its baselines on the configured pairs, for every seed.

    Leaves in the run folder: predictions, ``metrics.json``, ``comparisons.json``, figures and, unless
    ``report`` is false, ``report/report.html``.

    Returns:
        The records; none in a process that is not the main one.

    Raises:
        DiffcorrError: no pair could be predicted.
    """
    with Run(config) as run:
        return _evaluate(run, load_pairs(config))


def _evaluate(run: Run, data: PairDataset) -> list[MetricRecord]:
    config = run.config
    protocol: PointProtocol = instantiate(config.protocol)
    further = load_protocols([name for name in config.get("protocols") or [] if name != protocol.name])
    backbone = run.backbone()
    build = partial(build_method, backbone=backbone, variant=run.variant())
    store = PredictionStore(run.folder / "predictions")
    scores = _Scores(run, data, (protocol, *further), backbone.name)
    for seed in seeds_of(config):
        method, drawn = None, None
        for node, built in configured_methods(config, seed, build):
            predictions = _predict(run, node, built, backbone, data, store, seed)
            method, drawn = method or built, drawn or predictions
            if run.processes.is_main:
                scores.add(built.name, seed, predictions)
        if run.processes.is_main and seed == seeds_of(config)[0] and method is not None and drawn is not None:
            draw_figures(run, method, scores.data, drawn, protocol)
    if not run.processes.is_main:
        return []
    for by_method in scores.of.values():
        _compare(run, {name: list(seeds.values()) for name, seeds in by_method.items()}, data)
    if config.report:
        report_run(run.folder, scores.data, list(scores.of[protocol.name]), min(3, config.num_figures))
    return scores.records


class _Scores:
    """The scores of all methods and seeds, on the pairs that all of them could predict.

    Args:
        run: receives the records as they come.
        data: the pairs that were asked for.
        protocols: one or more.
        backbone: name of the model.

    Attributes:
        data: the pairs that are scored: those that no method has failed on so far.
        of: the score of each protocol, method and seed.
        records: of the run folder.
    """

    def __init__(
        self, run: Run, data: PairDataset, protocols: Sequence[PointProtocol], backbone: str
    ) -> None:
        self.run, self.asked, self.data, self.protocols, self.backbone = run, data, data, protocols, backbone
        self.of: dict[str, dict[str, dict[int, PCK]]] = {protocol.name: {} for protocol in protocols}
        self.records: list[MetricRecord] = []
        self._common = CommonPairs(data.pairs, run.folder)
        self._columns = pair_columns(data.pairs)
        self._predictions: dict[tuple[str, int], list[PointPrediction]] = {}

    def add(self, method: str, seed: int, predictions: list[PointPrediction]) -> None:
        """Score a method; where it lacks pairs that others have, these are scored anew without them.

        Raises:
            DiffcorrError: no pair is left.
        """
        self._predictions[method, seed] = predictions
        found = {prediction.pair_id for prediction in predictions}
        to_score = self._common.add(method, seed, found)
        if len(pairs := self._common.left) < len(self.data.pairs):
            self.data, self._columns = SomePairs(self.asked, pairs), pair_columns(pairs)
        for key in to_score:
            self._score(*key)

    def _score(self, method: str, seed: int) -> None:
        matched = match_points(self._columns, self._predictions[method, seed], FRESH)
        for protocol in self.protocols:
            self.of[protocol.name].setdefault(method, {})[seed] = score_matched(matched, protocol)
            new = correspondence_records(matched, protocol, method, self.backbone, self.data, seed)
            new = [replace(record, extra={**record.extra, **self._common.note}) for record in new]
            self.records = self.run.keep(new)
            overall = [record for record in new if "group" not in record.extra]
            self.run.log({f"{method}/{r.metric} {r.protocol}": r.value for r in overall})


def _predict(
    run: Run,
    node: DictConfig,
    method: CorrespondenceMethod,
    backbone: Backbone,
    data: PairDataset,
    store: PredictionStore,
    seed: int,
) -> list[PointPrediction]:
    """The predictions of a method that ``node`` describes, with those that are stored of it already.

    Shared out among the processes of the run; the main one gets them, the others get none.
    """
    identity = config_hash(
        {
            "method": node,
            "attention": run.config.attention,
            "backbone": backbone.identity(),
            "precision": run.config.trainer.precision,
        }
    )
    stored = run.processes.tell(lambda: sorted(store.pair_ids(method.name, seed, identity)))
    done = set(stored)
    todo = [pair for pair in data.pairs if pair.pair_id not in done]
    log.info("%s, seed %d: %d pairs stored, %d to predict", method.name, seed, len(done), len(todo))
    if isinstance(method, PromptFit):
        with_store(method, run.config)
        method.prompts([query for pair in data.pairs for query in pair.queries()])  # who shares with whom
        if todo:
            fit_missing(run, method, data)
    keep = partial(store.add, method.name, seed, config_hash=identity)
    module = PairPredictionModule(
        method, todo, ImagesById(data), lambda points: keep(predictions=points), run.processes, run.failed
    )
    with run.stage("predict", method.name, "pairs", len(data.pairs), len(todo), seed, identity):
        if todo:
            run.trainer().predict(module, return_predictions=False)
        store.flush()
    if todo and isinstance(latents := backbone.latent_store, LatentStore):
        log.info("crops so far: %d encoded, %d found in %s", latents.misses, latents.hits, latents.folder)
    if not run.processes.is_main:
        return []
    store.renew(method.name, seed, identity)
    return store.predictions(method.name, seed, identity)


def correspondence_records(
    matched: Matched, protocol: PointProtocol, method: str, backbone: str, data: PairDataset, seed: int
) -> list[MetricRecord]:
    """The overall scores, and those of every category and tag, all under the protocol's own average."""
    about = (TASK, method, backbone, data.name, data.split, protocol.name)
    values = score_matched(matched, protocol).compute()
    records = [MetricRecord(*about, k, 100 * float(v), len(data.pairs), seed) for k, v in values.items()]
    for row in breakdowns_of_pairs(matched, protocol):
        extra = {"group": f"{row.by}={row.group}", "average": protocol.average}
        records.append(MetricRecord(*about, row.metric, row.value, row.num_pairs, seed, extra))
    return records


def _compare(run: Run, scores: dict[str, list[PCK]], data: PairDataset) -> None:
    """Differences of the first method to the others: each pair's mean over seeds, bootstrapped over pairs."""
    main = next(iter(scores))
    rows = [
        comparison(
            scores[main][0].protocol.name, TASK, data.name, main, name, metric, interval, len(scores[main])
        )
        for name in scores
        if name != main
        for metric in scores[main][0].names()
        for interval in [compare_points(scores[main], scores[name], metric).times(100)]
    ]
    run.keep_comparisons(rows)


def draw_figures(
    run: Run,
    method: CorrespondenceMethod,
    data: PairDataset,
    predictions: Sequence[PointPrediction],
    protocol: PointProtocol,
) -> None:
    """Pairs with their matches, and the heatmaps of the first of them."""
    predicted = {(p.pair_id, p.keypoint): (p.x, p.y) for p in predictions}
    loggers = [run.loggers] if run.loggers else []
    drawn: dict[str, list[Figure]] = {}  # of each pair
    for pair in data.pairs[: run.config.num_figures]:
        source, target = data.image(pair.source_id), data.image(pair.target_id)
        alpha = protocol.alphas[0]
        figure = draw_matches(
            source,
            target,
            pair.source_points,
            [predicted[pair.pair_id, k] for k in pair.keypoints],
            truth=pair.target_points,
            threshold=protocol.radii(pair, alpha),
            names=pair.keypoints,
            title=f"{method.name}: {pair.category}",
            threshold_name=f"alpha {alpha:g}, protocol {protocol.name}",
        )
        log_figure(loggers, f"matches/{pair.pair_id}", figure, None, run.figures)
        drawn[pair.pair_id] = [figure]
    for pair in data.pairs[: run.config.num_heatmaps if isinstance(method, PromptFit) else 0]:
        assert isinstance(method, PromptFit)
        target = data.image(pair.target_id)
        query = pair.queries()[0]
        # fits nothing anew, but a method may have to see the source, which stored predictions did not ask for
        method.fit([query], {pair.source_id: data.image(pair.source_id)})
        (found,) = method.locate([query], target, f"{pair.dataset}/{pair.target_id}", heatmaps=True)
        assert found.heatmap is not None
        maps = {name: m.numpy() for name, m in found.layer_maps.items()} | {"mean": found.heatmap.numpy()}
        figure = draw_heatmaps(
            target, maps, point=found.point, title=f"{method.name}: {pair.keypoints[0]} of a {pair.category}"
        )
        log_figure(loggers, f"heatmaps/{pair.pair_id}-{pair.keypoints[0]}", figure, None, run.figures)
        drawn.setdefault(pair.pair_id, []).append(figure)
    if loggers:
        log_panels(loggers, method.name, data, predictions, protocol, drawn)
