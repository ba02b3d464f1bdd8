"""Segmentation from configuration to figures: predict, store, score, report."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from lightning import Callback, LightningModule, Trainer
from omegaconf import DictConfig
from torch.utils.data import DataLoader, Subset

from diffcorr.backbones.base import Backbone
from diffcorr.config import config_hash, instantiate, load_option
from diffcorr.errors import DataError, UnknownNameError
from diffcorr.metrics import MASK_PROTOCOLS, MaskProtocol, SegmentationScore, paired_bootstrap, score_masks
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


class _StoredMasks(Mapping[str, Mask]):
    """The masks of one method and seed by image id, read one by one: those of a data set fill no memory."""

    def __init__(
        self, store: MaskStore, image_ids: Sequence[str], name: str, seed: int, config_hash: str
    ) -> None:
        self.store, self.image_ids = store, image_ids
        self.about = name, seed, config_hash

    def __getitem__(self, image_id: str) -> Mask:
        mask = self.store.get(image_id, *self.about)
        if mask is None:
            raise KeyError(image_id)
        return mask

    def __iter__(self) -> Iterator[str]:
        return iter(self.image_ids)

    def __len__(self) -> int:
        return len(self.image_ids)


@dataclass(frozen=True)
class _Index:
    """What a run needs to know of every image, gathered in one pass over the data set.

    Attributes:
        image_ids: in the data set's order.
        styles: rendering style of each, empty where it has none.
        num_classes: classes in the label of each, at least 1.
    """

    image_ids: list[str]
    styles: list[str]
    num_classes: list[int]

    @classmethod
    def of(cls, data: SegmentationDataset) -> _Index:
        index = cls([], [], [])
        for i in range(len(data)):
            sample = data[i]
            index.image_ids.append(sample["image_id"])
            index.styles.append(str(sample["tags"].get("style", "")))
            classes = np.unique(sample["label"])
            index.num_classes.append(max(1, int((classes >= 0).sum())))
        return index


def evaluate_segmentation(config: DictConfig) -> list[MetricRecord]:
    """Run the configured method and its baselines on the configured images, for every seed.

    Methods that need a number of segments get that of the first method's own masks, or that of the label's
    classes, whichever they ask for. Leaves in the run folder: masks, ``metrics.json``, ``comparisons.json``
    and figures; of a data set without labels masks and figures alone.
    """
    run = Run(config)
    data: SegmentationDataset = instantiate(config.data)
    if not len(data):
        raise DataError(
            f"expected images in {data.name} ({data.split}), found none; check split and num_images"
        )
    protocols = _protocols(config) if data.classes else []
    backbone = run.backbone()
    store = MaskStore(run.folder / "masks", on_duplicate="replace")
    index = _Index.of(data)
    counts = {"labels": dict(zip(index.image_ids, index.num_classes, strict=True))} if data.classes else {}
    scores: dict[str, dict[str, list[SegmentationScore]]] = {protocol.name: {} for protocol in protocols}
    records: list[MetricRecord] = []
    for seed in seeds_of(config):
        config.seed = seed
        counts.pop("method", None)
        done: set[str] = set()
        for node in [config.method, *(load_option("method", name, config) for name in config.baselines)]:
            method: SegmentationMethod = instantiate(node)
            if method.name in done:
                log.info("%s, seed %d: another of that name ran already, left out", method.name, seed)
                continue
            done.add(method.name)
            masks = _predict(run, node, method, backbone, data, store, seed, index, counts)
            if "method" not in counts:
                counts["method"] = {image_id: count_segments(mask) for image_id, mask in masks.items()}
                log.info("%s: %.1f segments an image", method.name, np.mean(list(counts["method"].values())))
            for protocol in protocols:
                metric = score_masks(masks, data, protocol)
                new = _records(metric, method.name, backbone.name, data, index, seed)
                records = run.keep(new)
                run.log({f"{method.name}/{r.metric} {r.protocol}": r.value for r in new if not r.extra})
                scores[protocol.name].setdefault(method.name, []).append(metric)
            if seed == seeds_of(config)[0]:
                _draw(run, method.name, masks, data)
                if protocols and node is config.method:
                    _draw_cases(
                        run, method.name, masks, data, index, scores[protocols[0].name][method.name][0]
                    )
    for by_method in scores.values():
        _compare(run, by_method, data)
    return records


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
    index: _Index,
    known_counts: Mapping[str, Mapping[str, int]],
) -> _StoredMasks:
    counts = known_counts.get(method.counts_from)
    settings = {key: value for key, value in node.items() if key not in NO_PART_OF_A_METHOD}
    identity = config_hash(
        {
            "method": settings,
            "backbone": backbone.fingerprint,
            "precision": run.config.trainer.precision,
            "num_segments": counts or {},
        }
    )
    done = {i for i in index.image_ids if store.config_hash(i, method.name, seed) == identity}
    todo = [place for place, image_id in enumerate(index.image_ids) if image_id not in done]
    log.info("%s, seed %d: %d masks stored, %d to predict", method.name, seed, len(done), len(todo))
    if todo:
        module = SegmentationModule(method, backbone if method.needs_backbone else None, counts)
        subset: Any = Subset(cast(Any, data), todo)
        loader: DataLoader[SegmentationSample] = DataLoader(subset, run.config.batch_size, collate_fn=list)
        keep = _StoreMasks(store, method.name, seed, identity)
        run.trainer(callbacks=[keep]).predict(module, loader, return_predictions=False)
    return _StoredMasks(store, index.image_ids, method.name, seed, identity)


def _records(
    metric: SegmentationScore,
    method: str,
    backbone: str,
    data: SegmentationDataset,
    index: _Index,
    seed: int,
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
    for style in sorted(set(index.styles) - {""}):
        places = [i for i, s in enumerate(index.styles) if s == style]
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
    """The first images of the data set."""
    places = range(min(run.config.num_figures, len(data)))
    _sheet(run, f"segmentation/{method}", f"{method} on {data.name} ({data.split})", masks, data, places)


def _draw_cases(
    run: Run,
    method: str,
    masks: Mapping[str, Mask],
    data: SegmentationDataset,
    index: _Index,
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
        title = f"{method} on {data.name} ({data.split}), {case} image of each style"
        _sheet(run, f"cases/{method}-{case}", title, masks, data, chosen, captions)


def _sheet(
    run: Run,
    name: str,
    title: str,
    masks: Mapping[str, Mask],
    data: SegmentationDataset,
    places: Sequence[int],
    captions: Sequence[str] | None = None,
) -> None:
    samples = [data[i] for i in places]
    if not samples:
        return
    figure = draw_segmentation_sheet(
        [s["image"] for s in samples],
        [masks[s["image_id"]] for s in samples],
        [s["label"] for s in samples] if data.classes else None,
        data.classes or None,
        title=title,
        captions=captions,
    )
    log_figure([run.loggers] if run.loggers else [], name, figure, None, run.figures)
