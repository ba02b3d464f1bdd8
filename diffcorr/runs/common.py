"""What every run needs: its folder, its trainer, its options and its records."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import lightning
from omegaconf import DictConfig, OmegaConf

from diffcorr.attention.base import AttentionVariant
from diffcorr.backbones.base import Backbone
from diffcorr.config import instantiate, prepare_run_folder, run_metadata
from diffcorr.metrics import Interval
from diffcorr.stores.records import MetricRecord, read_records, write_records
from diffcorr.types import PairDataset, UInt8Image


class Run:
    """One run folder and the objects that its configuration describes.

    Args:
        config: the whole configuration of an entry point.

    Raises:
        StoreError: the output folder cannot be written; raised before anything is loaded.
    """

    def __init__(self, config: DictConfig) -> None:
        self.config = config
        self.folder = prepare_run_folder(config.output_dir, config, config.seed, config.task)
        self.figures = self.folder / "figures"
        lightning.seed_everything(config.seed, verbose=False)
        self.loggers: Any = instantiate(config.logger)
        if self.loggers:
            described = OmegaConf.to_container(config, resolve=True)
            self.loggers.log_hyperparams({"config": described, "run": run_metadata(config.seed)})
        # a run builds several trainers, each of which would say anew which devices there are
        logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
        warnings.filterwarnings("ignore", "predict returned None")
        warnings.filterwarnings("ignore", ".*LeafSpec.* is deprecated")
        warnings.filterwarnings("ignore", ".*does not have many workers")

    def backbone(self) -> Backbone:
        """The frozen model."""
        backbone: Backbone = instantiate(self.config.backbone)
        return backbone

    def variant(self) -> AttentionVariant:
        """The attention variant."""
        variant: AttentionVariant = instantiate(self.config.attention)
        return variant

    def trainer(self, **kwargs: Any) -> lightning.Trainer:
        """A trainer of the configured kind, with the run's logger."""
        trainer: lightning.Trainer = instantiate(self.config.trainer, logger=self.loggers, **kwargs)
        return trainer

    def log(self, values: Mapping[str, float]) -> None:
        """Send scores to the logger, where there is one."""
        if self.loggers:
            self.loggers.log_metrics(dict(values))

    def keep(self, records: Iterable[MetricRecord]) -> list[MetricRecord]:
        """Write records into ``metrics.json``, in the place of older ones of the same thing."""
        path = self.folder / "metrics.json"
        kept = {_key(r): r for r in (read_records(path) if path.exists() else [])}
        kept |= {_key(r): r for r in records}
        write_records(path, kept.values())
        return list(kept.values())

    def keep_comparisons(self, rows: Iterable[dict[str, Any]]) -> None:
        """Write differences into ``comparisons.json``, in the place of older ones of the same thing."""
        path = self.folder / "comparisons.json"
        old = json.loads(path.read_text()) if path.exists() else []
        about = ("task", "dataset", "protocol", "method", "against", "metric")
        kept = {tuple(row[k] for k in about): row for row in [*old, *rows]}
        write_text(path, "[\n" + ",\n".join(json.dumps(row) for row in kept.values()) + "\n]\n")


def comparison(
    protocol: str,
    task: str,
    dataset: str,
    method: str,
    against: str,
    metric: str,
    interval: Interval,
    num_seeds: int,
) -> dict[str, Any]:
    """One difference between two methods, in points of percent, with its 95 % interval."""
    return {
        "task": task,
        "method": method,
        "against": against,
        "dataset": dataset,
        "protocol": protocol,
        "metric": metric,
        "difference": round(interval.difference, 2),
        "interval95": [round(interval.low, 2), round(interval.high, 2)],
        "num_items": interval.num_items,
        "num_seeds": num_seeds,
    }


def _key(record: MetricRecord) -> tuple[object, ...]:
    fields = {k: v for k, v in record.to_dict().items() if k not in ("value", "num_items")}
    return tuple(sorted((k, str(v)) for k, v in fields.items()))


class ImagesById(Mapping[str, UInt8Image]):
    """The images of a data set, loaded when asked for."""

    def __init__(self, data: PairDataset) -> None:
        self.data = data
        self.ids = sorted({i for p in data.pairs for i in (p.source_id, p.target_id)})

    def __getitem__(self, image_id: str) -> UInt8Image:
        return self.data.image(image_id)

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids)

    def __len__(self) -> int:
        return len(self.ids)


def seeds_of(config: DictConfig) -> list[int]:
    """The seeds that a run repeats itself for: ``seeds`` where given, else the one ``seed``."""
    return [int(s) for s in config.get("seeds") or [config.seed]]


def write_text(path: Path, text: str) -> None:
    """A small text file of the run folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
