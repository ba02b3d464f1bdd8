"""All that can be said of stored methods on one data set: scores under every protocol, with intervals."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from diffcorr.errors import ProtocolError
from diffcorr.metrics import (
    PCK,
    Estimate,
    Handling,
    Interval,
    PairColumns,
    PointProtocol,
    Resampled,
    pair_columns,
    resample_scores,
    score_matched,
)
from diffcorr.runs.score import size_of
from diffcorr.runs.stored import StoredMethod, StoredRun
from diffcorr.types import PairDataset

METRIC = "pck@0.10"
"""The one score that all presets have."""

Key = tuple[str, str, str]
"""(method, protocol, metric)."""


@dataclass(frozen=True)
class Moved:
    """How far the choice of protocol alone moves one method's score, in percent."""

    method: str
    low: float
    low_protocol: str
    high: float
    high_protocol: str

    @property
    def points(self) -> float:
        """Highest minus lowest score."""
        return self.high - self.low


class Chapter:
    """Methods, protocols and scores of one data set.

    Args:
        data: the pairs.
        columns: of these pairs.
        methods: the predictions of each method, one for each seed.
        protocols: that all of the pairs can be scored under.
        left_out: the others, with the reason.
        backbones: names of the models behind the predictions.

    Attributes:
        scores: of each (protocol, method) one for each seed.
    """

    def __init__(
        self,
        data: PairDataset,
        columns: PairColumns,
        methods: Mapping[str, Sequence[StoredMethod]],
        protocols: Sequence[PointProtocol],
        left_out: Mapping[str, str],
        backbones: Sequence[str],
    ) -> None:
        self.data, self.columns, self.left_out, self.backbones = data, columns, left_out, list(backbones)
        self.protocols = {protocol.name: protocol for protocol in protocols}
        self.scores: dict[tuple[str, str], list[PCK]] = {
            (name, method): [score_matched(stored.matched, protocol) for stored in seeds]
            for name, protocol in self.protocols.items()
            for method, seeds in methods.items()
        }
        first = next(iter(self.protocols))
        rank = {m: -statistics.fmean(self.seeds_of(m, first, METRIC)) for m in methods}
        self.methods = {m: list(methods[m]) for m in sorted(methods, key=lambda m: (rank[m], m))}

    @property
    def main(self) -> PointProtocol:
        """The protocol of everything that is shown under one alone: the first."""
        return next(iter(self.protocols.values()))

    @property
    def best(self) -> str:
        """The method with the highest score under `main`."""
        return next(iter(self.methods))

    @property
    def alike(self) -> bool:
        """Whether all methods are scored on the same points, so that they can be compared."""
        scored = [stored.matched.scored for seeds in self.methods.values() for stored in seeds]
        return all(np.array_equal(one, scored[0]) for one in scored)

    def seeds_of(self, method: str, protocol: str, metric: str) -> list[float]:
        """The score of each seed, in percent."""
        return [100 * float(metric_.compute()[metric]) for metric_ in self.scores[protocol, method]]

    @cached_property
    def keys(self) -> list[Key]:
        """Every score that there is: methods by rank, protocols and metrics in their order."""
        return [
            (method, name, metric)
            for method in self.methods
            for name in self.protocols
            for metric in self.scores[name, method][0].names()
        ]

    @cached_property
    def _resampled(self) -> dict[Key, tuple[Resampled, int]]:
        """Where the drawn scores of each are; methods on other points are drawn apart."""
        together = [self.keys] if self.alike else [[k for k in self.keys if k[0] == m] for m in self.methods]
        found: dict[Key, tuple[Resampled, int]] = {}
        for keys in together:
            drawn = resample_scores([(self.scores[name, method], metric) for method, name, metric in keys])
            found |= {key: (drawn, number) for number, key in enumerate(keys)}
        return found

    def estimate(self, method: str, protocol: str, metric: str = METRIC) -> Estimate:
        """A score, mean over seeds, with its 95 % interval over pairs; percent."""
        drawn, number = self._resampled[method, protocol, metric]
        return drawn.estimate(number).times(100)

    def lead(self, method: str, protocol: str, metric: str = METRIC) -> Interval | None:
        """`best` minus the method, with the paired 95 % interval, in points; None where points differ."""
        drawn, number = self._resampled[self.best, protocol, metric]
        other, place = self._resampled[method, protocol, metric]
        return drawn.difference(number, place).times(100) if drawn is other else None

    def moved(self, method: str) -> Moved:
        """What the choice of protocol alone does to a method's score at alpha 0.10."""
        values = {name: self.estimate(method, name).value for name in self.protocols}
        low, high = min(values, key=lambda n: values[n]), max(values, key=lambda n: values[n])
        return Moved(method, values[low], low, values[high], high)

    def order(self, protocol: str) -> list[str]:
        """The methods under a protocol at alpha 0.10, best first."""
        return sorted(self.methods, key=lambda m: -self.estimate(m, protocol).value)

    def to_dict(self) -> dict[str, Any]:
        """For machines: everything in percent, rounded to a hundredth."""
        rows = []
        for method, protocol, metric in self.keys:
            one = self.estimate(method, protocol, metric)
            seeds = self.seeds_of(method, protocol, metric)
            rows.append(
                {
                    "method": method,
                    "protocol": protocol,
                    "metric": metric,
                    "value": round(one.value, 2),
                    "interval95": [round(one.low, 2), round(one.high, 2)],
                    "num_items": one.num_items,
                    "num_seeds": len(seeds),
                    "std": round(statistics.stdev(seeds), 2) if len(seeds) > 1 else None,
                }
            )
        moved = [(m, self.moved(m)) for m in self.methods]
        leads = [
            (m, name, lead)
            for m in self.methods
            for name in self.protocols
            if m != self.best and (lead := self.lead(m, name)) is not None
        ]
        return {
            "dataset": self.data.name,
            "split": self.data.split,
            "num_pairs": len(self.columns.pairs),
            "num_points": len(self.columns.owner),
            "backbones": self.backbones,
            "protocols_left_out": dict(self.left_out),
            "predictions": [
                {
                    "method": m,
                    "seed": stored.seed,
                    "config_hash": stored.config_hash,
                    "superseded": list(stored.superseded),
                    **size_of(stored.matched),
                    **stored.counts,
                }
                for m, seeds in self.methods.items()
                for stored in seeds
            ],
            "scores": rows,
            "moved": [
                {
                    "method": m,
                    "metric": METRIC,
                    "points": round(one.points, 2),
                    "lowest": [one.low_protocol, round(one.low, 2)],
                    "highest": [one.high_protocol, round(one.high, 2)],
                }
                for m, one in moved
            ],
            "differences": [
                {
                    "method": self.best,
                    "against": m,
                    "protocol": name,
                    "metric": METRIC,
                    "difference": round(lead.difference, 2),
                    "interval95": [round(lead.low, 2), round(lead.high, 2)],
                }
                for m, name, lead in leads
            ],
        }


def read_chapter(
    runs: Sequence[StoredRun],
    data: PairDataset,
    protocols: Sequence[PointProtocol],
    *,
    handling: Handling | None = None,
    methods: Sequence[str] | None = None,
    chosen: Sequence[str] = (),
    strict: bool = False,
) -> Chapter:
    """Gather what runs have stored for a data set.

    Args:
        runs: one or more; a method that several of them have is called ``method [run folder]``.
        data: the pairs.
        protocols: one or more.
        handling: of predictions that do not fit the pairs; by default they are refused.
        methods: only these; None for all.
        chosen: configurations that count instead of the newest complete one.
        strict: whether a protocol that the pairs cannot be scored under is an error; else it is left out
            and the chapter says why.

    Raises:
        UnknownNameError: no such method or configuration.
        ProtocolError: predictions do not fit the pairs, no run has any of them, or no protocol is left.
    """
    columns = pair_columns(data.pairs)
    found = [(run, run.match(columns, handling or Handling(), methods, chosen)) for run in runs]
    if not any(stored for _, stored in found):
        raise ProtocolError(
            f"expected predictions of these {len(columns.pairs)} pairs of {data.name}, found those of other "
            "pairs alone: choose the data that they were made on"
        )
    runs_of = Counter(name for _, stored in found for name in {one.method for one in stored})
    seeds: dict[str, list[StoredMethod]] = {}
    for run, stored in found:
        for one in stored:
            label = one.method if runs_of[one.method] == 1 else f"{one.method} [{run.name}]"
            seeds.setdefault(label, []).append(one)
    kept, left_out = [], {}
    for protocol in protocols:
        try:
            protocol.threshold_lengths(columns)
            protocol.scales(columns)
            kept.append(protocol)
        except ProtocolError as error:
            if strict or protocol is protocols[0]:
                raise
            left_out[protocol.name] = str(error)
    backbones = sorted({name for run, stored in found if stored for name in run.backbones})
    return Chapter(data, columns, seeds, kept, left_out, backbones)
