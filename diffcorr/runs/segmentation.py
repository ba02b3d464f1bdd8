"""Segmentation from configuration to figures: predict, store, score, report."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from omegaconf import DictConfig
from torch.utils.data import DataLoader, Subset

from diffcorr.backbones.base import Backbone
from diffcorr.config import config_hash, instantiate, load_option
from diffcorr.errors import DataError
from diffcorr.metrics import MaskProtocol, SegmentationScore, paired_bootstrap, score_masks
from diffcorr.metrics.functional.segmentation import mean_iou_from_counts
from diffcorr.reports import draw_segmentation_sheet, log_figure
from diffcorr.runs.common import Run, comparison, seeds_of
from diffcorr.segmentation.base import Mask, MaskPrediction, SegmentationMethod, count_segments
from diffcorr.segmentation.module import SegmentationModule
from diffcorr.stores.masks import MaskStore
from diffcorr.stores.records import MetricRecord
from diffcorr.types import SegmentationDataset, SegmentationSample

log = logging.getLogger(__name__)
TASK = "segmentation"


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

    Baselines that need a number of segments get that of the method's own masks. Leaves in the run
    folder: masks, ``metrics.json``, ``comparisons.json`` and figures.
    """
    run = Run(config)
    data: SegmentationDataset = instantiate(config.data)
    if not len(data):
        raise DataError(
            f"expected images in {data.name} ({data.split}), found none; check split and num_images"
        )
    protocol: MaskProtocol = instantiate(config.protocol)
    backbone = run.backbone()
    store = MaskStore(run.folder / "masks", on_duplicate="replace")
    scores: dict[str, list[SegmentationScore]] = {}
    records: list[MetricRecord] = []
    for seed in seeds_of(config):
        config.seed = seed
        num_segments: dict[str, int] | None = None
        for node in [config.method, *(load_option("method", name, config) for name in config.baselines)]:
            method: SegmentationMethod = instantiate(node)
            masks = _predict(run, node, method, backbone, data, store, seed, num_segments)
            if num_segments is None:
                num_segments = {image_id: count_segments(mask) for image_id, mask in masks.items()}
                log.info("%s: %.1f segments an image", method.name, np.mean(list(num_segments.values())))
            metric = score_masks(masks, data, protocol)
            scores.setdefault(method.name, []).append(metric)
            new = _records(metric, method.name, backbone.name, data, seed)
            records = run.keep(new)
            run.log({f"{method.name}/{r.metric}": r.value for r in new if not r.extra})
            if seed == seeds_of(config)[0]:
                _draw(run, method.name, masks, data)
    _compare(run, scores, data)
    return records


def _predict(
    run: Run,
    node: DictConfig,
    method: SegmentationMethod,
    backbone: Backbone,
    data: SegmentationDataset,
    store: MaskStore,
    seed: int,
    num_segments: Mapping[str, int] | None,
) -> dict[str, Mask]:
    counts = num_segments if method.needs_num_segments else None
    identity = config_hash({"method": node, "backbone": backbone.fingerprint, "num_segments": counts or {}})
    samples = {data[i]["image_id"]: i for i in range(len(data))}
    done = {i for i in samples if store.config_hash(i, method.name, seed) == identity}
    todo = [place for image_id, place in samples.items() if image_id not in done]
    log.info(
        "%s, seed %d: %d masks stored, %d to predict", method.name, seed, len(samples) - len(todo), len(todo)
    )
    if todo:
        module = SegmentationModule(method, backbone if method.needs_backbone else None, counts)
        subset: Any = Subset(cast(Any, data), todo)
        loader: DataLoader[SegmentationSample] = DataLoader(subset, run.config.batch_size, collate_fn=list)
        keep = _StoreMasks(store, method.name, seed, identity)
        run.trainer(callbacks=[keep]).predict(module, loader, return_predictions=False)
    masks = {image_id: store.get(image_id, method.name, seed, identity) for image_id in samples}
    return {image_id: mask for image_id, mask in masks.items() if mask is not None}


def _records(
    metric: SegmentationScore, method: str, backbone: str, data: SegmentationDataset, seed: int
) -> list[MetricRecord]:
    """The overall scores, those of every class, and those of every style where images have one."""
    about = (TASK, method, backbone, data.name, data.split, metric.protocol.name)
    records = [
        MetricRecord(*about, name, 100 * float(value), len(data), seed)
        for name, value in metric.compute().items()
    ]
    for name, iou in zip(data.classes, metric.per_class().tolist(), strict=True):
        if np.isfinite(iou):
            records.append(
                MetricRecord(*about, "iou", 100 * iou, len(data), seed, {"group": f"class={name}"})
            )
    counts = metric.per_image()[1]
    styles = [str(data[i]["tags"].get("style", "")) for i in range(len(data))]
    for style in sorted(set(styles) - {""}):
        places = [i for i, s in enumerate(styles) if s == style]
        value = 100 * float(mean_iou_from_counts(counts[places].sum(0)))
        records.append(MetricRecord(*about, "miou", value, len(places), seed, {"group": f"style={style}"}))
    return records


def _mean_iou(counts_R3C: np.ndarray) -> np.ndarray:
    return mean_iou_from_counts(torch.from_numpy(counts_R3C)).numpy()


def _compare(run: Run, scores: dict[str, list[SegmentationScore]], data: SegmentationDataset) -> None:
    """Differences of mIoU to the baselines: counts summed over seeds, bootstrapped over images."""
    counts = {name: sum(m.per_image()[1].double().numpy() for m in ms) for name, ms in scores.items()}
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


def _draw(run: Run, method: str, masks: Mapping[str, Mask], data: SegmentationDataset) -> None:
    samples = [data[i] for i in range(min(run.config.num_figures, len(data)))]
    figure = draw_segmentation_sheet(
        [s["image"] for s in samples],
        [masks[s["image_id"]] for s in samples],
        [s["label"] for s in samples],
        data.classes,
        title=f"{method} on {data.name} ({data.split})",
    )
    log_figure([run.loggers] if run.loggers else [], f"segmentation/{method}", figure, None, run.figures)
