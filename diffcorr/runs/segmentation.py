"""Segmentation from configuration to figures: predict, store, score, report."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from omegaconf import DictConfig, OmegaConf
from safetensors.torch import load, save

from diffcorr.backbones.base import Backbone
from diffcorr.config import config_hash, instantiate, load_option
from diffcorr.errors import DataError, UnknownNameError
from diffcorr.metrics import MASK_PROTOCOLS, MaskProtocol, SegmentationScore, paired_bootstrap, score_masks
from diffcorr.metrics.functional.segmentation import mean_iou_from_counts
from diffcorr.reports import draw_segmentation_sheet, log_figure
from diffcorr.runs.clusters import cluster_masks
from diffcorr.runs.common import FAILURES, Run, comparison, configured_methods, seeds_of
from diffcorr.runs.segmentation_images import ImageBatches, ImageIndex, SomeImages
from diffcorr.segmentation.base import Mask, MaskPrediction, SegmentationMethod, count_segments
from diffcorr.segmentation.module import SegmentationModule
from diffcorr.segmentation.word_labels import WordLabels
from diffcorr.stores.masks import MaskStore, StoredMasks
from diffcorr.stores.records import MetricRecord
from diffcorr.types import SegmentationDataset, SegmentationSample

log = logging.getLogger(__name__)
TASK = "segmentation"
NO_PART_OF_A_METHOD = ("cache", "cache_gib")
"""Settings that change no mask: a run with a cache finds the masks of one without."""


class _StoreMasks(Callback):
    """Puts the masks of each batch into the store as they come."""

    def __init__(self, store: MaskStore, name: str, seed: int, config_hash: str) -> None:
        self.store, self.name, self.seed, self.config_hash = store, name, seed, config_hash

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: list[MaskPrediction],
        batch: list[SegmentationSample],
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        for image_id, mask in outputs:
            self.store.add(image_id, self.name, mask, self.seed, self.config_hash)


def evaluate_segmentation(config: DictConfig) -> list[MetricRecord]:
    """Run the configured method and its baselines on the configured images, for every seed.

    Where ``clusters`` is configured, segments get ids that agree across images first, see `cluster_masks`.
    Methods that need a number of segments get that of the first method's own masks, or that of the label's
    classes, whichever they ask for. Leaves in the run folder: masks, ``metrics.json``, ``comparisons.json``
    and figures; of a data set without labels masks and figures alone.
    """
    with Run(config) as run:
        return _evaluate(run)


def _evaluate(run: Run) -> list[MetricRecord]:
    config = run.config
    data: SegmentationDataset = instantiate(config.data)
    if not len(data):
        raise DataError(
            f"expected images in {data.name} ({data.split}), found none; check split and num_images"
        )
    protocols = _protocols(config) if data.classes else []
    backbone = run.backbone()
    store = MaskStore(run.folder / "masks", on_duplicate="replace")
    index, asked = ImageIndex.of(data, run), len(data)
    if len(index.places) < asked:
        data = cast(SegmentationDataset, SomeImages(data, index.places))
    counts = {"labels": dict(zip(index.image_ids, index.num_classes, strict=True))} if data.classes else {}
    scores: dict[str, dict[str, list[SegmentationScore]]] = {protocol.name: {} for protocol in protocols}
    records: list[MetricRecord] = []
    for seed in seeds_of(config):
        counts.pop("method", None)
        for node, method in configured_methods(config, seed, partial(_with_words, data=data)):
            masks = _predict(run, node, method, backbone, data, store, seed, index, counts)
            if "method" not in counts:
                counts["method"] = run.processes.tell(partial(_count, masks))
                log.info("%s: %.1f segments an image", method.name, np.mean(list(counts["method"].values())))
            variants = {method.name: masks}
            if config.get("clusters"):
                variants = cluster_masks(run, masks, data, backbone, store, seed, node is config.method)
            for name, found in variants.items():
                for protocol in protocols:
                    metric = _score(run, found, data, protocol, index)
                    if not run.processes.is_main:
                        continue
                    new = _records(metric, name, backbone.name, data, index, seed, asked)
                    records = run.keep(new)
                    overall = [record for record in new if "group" not in record.extra]
                    run.log({f"{name}/{r.metric} {r.protocol}": r.value for r in overall})
                    scores[protocol.name].setdefault(name, []).append(metric)
                if seed != seeds_of(config)[0] or not run.processes.is_main:
                    continue
                first = scores[protocols[0].name] if protocols else {}
                _draw(run, name, method, found, data, index, first[name][0] if first else None)
                if first and name == next(iter(first)):
                    _draw_cases(run, name, method, found, data, index, first[name][0])
    if run.processes.is_main:
        for by_method in scores.values():
            _compare(run, by_method, data)
    return records


def _count(masks: StoredMasks) -> dict[str, int]:
    """The number of segments of each image."""
    return {image_id: count_segments(mask) for image_id, mask in masks.items()}


def _score(
    run: Run, masks: StoredMasks, data: SegmentationDataset, protocol: MaskProtocol, index: ImageIndex
) -> SegmentationScore:
    """Every image scored by one process, brought together in all of them."""
    kept = set(masks.image_ids)
    places = [place for place, image_id in enumerate(index.image_ids) if image_id in kept]
    metric = score_masks(masks, data, protocol, places[run.processes.rank :: run.processes.size])
    states = [(name, getattr(metric, name)) for name in ("index", "sizes", "cells")]
    own = save({name: torch.cat(state) for name, state in states if state})
    parts = [load(part) for part in run.processes.gather(own)]
    for name, _ in states:
        setattr(metric, name, [part[name] for part in parts if name in part])
    return metric


def _protocols(config: DictConfig) -> list[MaskProtocol]:
    """The configured protocol and further ones by name, each once.

    Raises:
        UnknownNameError: a name of none, or of one for points.
    """
    protocols: list[MaskProtocol] = [instantiate(config.protocol)]
    for name in config.get("protocols") or []:
        if name not in MASK_PROTOCOLS:
            raise UnknownNameError("protocol for masks", name, MASK_PROTOCOLS)
        if name not in {protocol.name for protocol in protocols}:
            protocols.append(instantiate(load_option("protocol", name, config)))
    return protocols


def _predict(
    run: Run,
    node: DictConfig,
    method: SegmentationMethod,
    backbone: Backbone,
    data: SegmentationDataset,
    store: MaskStore,
    seed: int,
    index: ImageIndex,
    known_counts: Mapping[str, Mapping[str, int]],
) -> StoredMasks:
    counts = known_counts.get(method.counts_from)
    identity = config_hash(
        {
            "method": _settings(OmegaConf.to_container(node, resolve=True)),
            "backbone": backbone.identity(),
            "precision": run.config.trainer.precision,
            "num_segments": counts or {},
            **_seen(method, data),
        }
    )

    def stored() -> list[str]:
        return [i for i in index.image_ids if store.config_hash(i, method.name, seed) == identity]

    done = set(run.processes.tell(stored))
    wanted = [p for p, image_id in enumerate(index.image_ids) if counts is None or image_id in counts]
    size = run.config.batch_size
    batches = [wanted[start : start + size] for start in range(0, len(wanted), size)]
    todo = [batch for batch in batches if any(index.image_ids[place] not in done for place in batch)]
    num_todo = sum(map(len, todo))
    log.info(
        "%s, seed %d: %d masks stored, %d to predict", method.name, seed, len(wanted) - num_todo, num_todo
    )
    with run.stage("predict", method.name, "images", len(wanted), num_todo, seed, identity):
        if todo:
            module = SegmentationModule(method, backbone if method.needs_backbone else None, counts)
            order = run.processes.share([len(batch) for batch in todo], f"{method.name}, batches")
            keep = _StoreMasks(store, method.name, seed, identity)
            batches_read = ImageBatches(data, todo, order, run.failed)
            run.trainer(callbacks=[keep]).predict(module, batches_read, return_predictions=False)
    if todo:
        done = set(run.processes.tell(stored))
    if not done:
        raise DataError(f"expected masks by {method.name}, found none: every image failed, see {FAILURES}")
    kept = [image_id for image_id in index.image_ids if image_id in done]
    return StoredMasks(store, kept, method.name, seed, identity)


def _with_words(method: SegmentationMethod, data: SegmentationDataset) -> SegmentationMethod:
    """A method that names segments and has no words of its own takes the classes of the data set."""
    if isinstance(method, WordLabels) and method.words is None:
        return replace(method, words=tuple(data.classes))
    return method


def _settings(node: Any) -> Any:
    """What of a method's configuration decides its masks, also of the methods that it is built on."""
    if not isinstance(node, dict):
        return node
    return {key: _settings(value) for key, value in node.items() if key not in NO_PART_OF_A_METHOD}


def _seen(method: SegmentationMethod, data: SegmentationDataset) -> dict[str, object]:
    """What of the data set decides a mask beside the image's id: how images are cropped, and the words."""
    square = getattr(data, "square", None)
    seen: dict[str, object] = {} if square is None else {"square": square}
    if isinstance(method, WordLabels):
        seen["words"] = list(method.words or ())
    return seen


def _records(
    metric: SegmentationScore,
    method: str,
    backbone: str,
    data: SegmentationDataset,
    index: ImageIndex,
    seed: int,
    asked: int,
) -> list[MetricRecord]:
    """The overall scores, those of every class, and those of every style where images have one."""
    about = (TASK, method, backbone, data.name, data.split, metric.protocol.name)
    places, counts = metric.per_image()
    extra = {"num_asked": asked} if len(places) < asked else {}
    records = [
        MetricRecord(*about, name, 100 * float(value), len(places), seed, extra)
        for name, value in metric.compute().items()
    ]
    for name, iou in zip(data.classes, metric.per_class().tolist(), strict=True):
        if np.isfinite(iou):
            group = {"group": f"class={name}", **extra}
            records.append(MetricRecord(*about, "iou", 100 * iou, len(places), seed, group))
    styles = [index.styles[place] for place in places.tolist()]
    for style in sorted(set(styles) - {""}):
        rows = [row for row, s in enumerate(styles) if s == style]
        value = 100 * float(mean_iou_from_counts(counts[rows].sum(0)))
        group = {"group": f"style={style}", **extra}
        records.append(MetricRecord(*about, "miou", value, len(rows), seed, group))
    return records


def _mean_iou(counts_R3C: np.ndarray) -> np.ndarray:
    return mean_iou_from_counts(torch.from_numpy(counts_R3C)).numpy()


def _compare(run: Run, scores: dict[str, list[SegmentationScore]], data: SegmentationDataset) -> None:
    """Differences of mIoU to the baselines: counts summed over seeds, bootstrapped over the images of all."""
    places = [set(m.per_image()[0].tolist()) for ms in scores.values() for m in ms]
    common = sorted(set.intersection(*places))

    def counts_of(metric: SegmentationScore) -> np.ndarray:
        index, counts = metric.per_image()
        return counts[torch.isin(index, torch.tensor(common))].double().numpy()

    counts = {name: sum(map(counts_of, ms)) for name, ms in scores.items()}
    main = next(iter(scores))
    rows = [
        comparison(
            scores[main][0].protocol.name, TASK, data.name, main, name, "miou", interval, len(scores[main])
        )
        for name in counts
        if name != main
        for interval in [
            paired_bootstrap(counts[main], counts[name], lambda c: 100 * _mean_iou(c), num_resamples=2000)
        ]
    ]
    run.keep_comparisons(rows)


def _draw(
    run: Run,
    name: str,
    method: SegmentationMethod,
    masks: Mapping[str, Mask],
    data: SegmentationDataset,
    index: ImageIndex,
    metric: SegmentationScore | None,
) -> None:
    """The first images of the data set."""
    places = [place for place, i in enumerate(index.image_ids) if i in masks][: run.config.num_figures]
    title = f"{name} on {data.name} ({data.split})"
    _sheet(run, f"segmentation/{name}", title, method, masks, data, metric, places)


def _draw_cases(
    run: Run,
    name: str,
    method: SegmentationMethod,
    masks: Mapping[str, Mask],
    data: SegmentationDataset,
    index: ImageIndex,
    metric: SegmentationScore,
) -> None:
    """The best and the worst image of every style, by their own mean IoU under the first protocol."""
    places, counts = metric.per_image()
    own = dict(zip(places.tolist(), mean_iou_from_counts(counts).nan_to_num().tolist(), strict=True))
    for case, choose in (("best", max), ("worst", min)):
        chosen = [
            choose((i for i in own if index.styles[i] == style), key=lambda i: own[i])
            for style in sorted(set(index.styles))
        ]
        captions = [
            f"{index.styles[i]} mIoU {100 * own[i]:.1f} ({metric.protocol.name})".strip() for i in chosen
        ]
        title = f"{name} on {data.name} ({data.split}), {case} image of each style"
        _sheet(run, f"cases/{name}-{case}", title, method, masks, data, metric, chosen, captions)


def _sheet(
    run: Run,
    name: str,
    title: str,
    method: SegmentationMethod,
    masks: Mapping[str, Mask],
    data: SegmentationDataset,
    metric: SegmentationScore | None,
    places: Sequence[int],
    captions: Sequence[str] | None = None,
) -> None:
    shown = [masks[data[i]["image_id"]] for i in places]
    names = method.words if isinstance(method, WordLabels) else None
    if metric is not None and metric.protocol.accounting == "global":
        # what each id was taken for in the whole data set, not what it covers in this image
        class_of = metric.classes_of_segments().cpu().numpy()
        shown, names = [class_of[mask] for mask in shown], data.classes
    samples = [data[i] for i in places]
    if not samples:
        return
    figure = draw_segmentation_sheet(
        [s["image"] for s in samples],
        shown,
        [s["label"] for s in samples] if data.classes else None,
        data.classes or None,
        title=title,
        captions=captions,
        segment_names=names,
    )
    log_figure([run.loggers] if run.loggers else [], name, figure, None, run.figures)
