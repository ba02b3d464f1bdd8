"""Records of several seeds drawn together into one row for each score."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from diffcorr.stores.records import MetricRecord


class Setting(NamedTuple):
    """What must be equal for two scores to be comparable."""

    task: str
    backbone: str
    dataset: str
    split: str
    protocol: str
    group: str


@dataclass(frozen=True)
class Score:
    """One method under one metric, over seeds.

    Attributes:
        method: name of the method.
        metric: name of the metric.
        setting: what it was measured on, and how.
        values: one for each seed, in the order of the seeds, percent.
        num_items: how many pairs or images each value is over.
        interval: (low, high) in percent of a single seed's record that carries ``interval``.
    """

    method: str
    metric: str
    setting: Setting
    values: tuple[float, ...]
    num_items: int
    interval: tuple[float, float] | None = None

    @property
    def mean(self) -> float:
        """Mean over seeds, percent."""
        return statistics.fmean(self.values)

    @property
    def std(self) -> float | None:
        """Sample standard deviation over seeds; ``None`` for one seed."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None

    @property
    def text(self) -> str:
        """The mean, and the deviation where there is one: ``41.2 ± 0.8``."""
        return f"{self.mean:.1f}" if self.std is None else f"{self.mean:.1f} ± {self.std:.1f}"


def summarise(records: Iterable[MetricRecord]) -> list[Score]:
    """Gather records that differ only in their seed, in the order of their first appearance.

    Extra keys other than ``interval`` tell groups apart (a breakdown by style, say), so that a part is
    never averaged with the whole.
    """
    gathered: dict[tuple[str, str, Setting], list[MetricRecord]] = {}
    for record in records:
        parts = {key: value for key, value in record.extra.items() if key != "interval"}
        group = ", ".join(str(value) if key == "group" else f"{key}={value}" for key, value in parts.items())
        setting = Setting(record.task, record.backbone, record.dataset, record.split, record.protocol, group)
        gathered.setdefault((record.method, record.metric, setting), []).append(record)
    scores = []
    for (method, metric, setting), same in gathered.items():
        same.sort(key=lambda record: record.seed)
        interval = same[0].extra.get("interval") if len(same) == 1 else None
        scores.append(
            Score(
                method,
                metric,
                setting,
                tuple(float(record.value) for record in same),
                same[0].num_items,
                None if interval is None else (float(interval[0]), float(interval[1])),
            )
        )
    return scores
