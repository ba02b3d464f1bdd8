"""Stored predictions under any protocols: no model, no image, no training run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from diffcorr.config import instantiate, load_option
from diffcorr.errors import ProtocolError, UnknownNameError
from diffcorr.metrics import (
    PCK,
    Handling,
    Matched,
    PointProtocol,
    breakdown,
    compare_points,
    pair_columns,
    score_matched,
)
from diffcorr.runs.common import comparison
from diffcorr.runs.stored import StoredRun
from diffcorr.stores.records import MetricRecord
from diffcorr.types import PairDataset

TASK = "correspondence"
BACKBONE = "stored"
"""What records say instead of a backbone where no run tells: a store holds points, not what made them."""


@dataclass(frozen=True)
class Scores:
    """What became of stored predictions.

    Attributes:
        records: a score for each method, seed, protocol and metric, and for each part of a breakdown.
        comparisons: differences of the methods to one of them, in points of percent.
        counts: for each method and seed the configuration that counts, those that it supersedes, the pairs
            and points scored, and what was handled (`Handling`) or belongs to other lists of the run.
    """

    records: list[MetricRecord]
    comparisons: list[dict[str, Any]]
    counts: list[dict[str, Any]]


def score_stored(
    run: StoredRun | str | Path,
    data: PairDataset,
    protocols: Sequence[PointProtocol],
    *,
    handling: Handling | None = None,
    methods: Sequence[str] | None = None,
    by: Sequence[str] = (),
    against: str | None = None,
    chosen: Sequence[str] = (),
) -> Scores:
    """Score every method and seed of a store.

    Args:
        run: the run or its predictions, or their folder.
        data: the pairs.
        protocols: one or more.
        handling: of predictions that do not fit the pairs; by default they are refused. A record of a
            method where something was left out or counted as wrong says so in its group.
        methods: which of the methods; None for all.
        by: breakdowns, see `diffcorr.metrics.breakdown`.
        against: a method that the others are compared to, each method's mean over its seeds.
        chosen: configurations to score where a method has several; by default the newest that is complete.

    Raises:
        StoreError: no predictions.
        UnknownNameError: no such method, configuration, breakdown or tag.
        ProtocolError: predictions do not fit the pairs, or a pair cannot be scored.
    """
    run = run if isinstance(run, StoredRun) else StoredRun(run)
    handling = handling or Handling()
    if against and against not in run.methods:
        raise UnknownNameError("method in the store", against, run.methods)
    wanted = [name for name in run.methods if not methods or name in methods or name == against]
    if against and len(wanted) < 2:
        raise ProtocolError(f"expected another method to compare {against!r} to, found none in the store")

    backbone = run.backbones[0] if len(run.backbones) == 1 else BACKBONE
    records: list[MetricRecord] = []
    counts: list[dict[str, Any]] = []
    scores: dict[tuple[str, str], list[PCK]] = {}
    for stored in run.match(pair_columns(data.pairs), handling, [*(methods or ()), *wanted], chosen):
        method, seed, matched = stored.method, stored.seed, stored.matched
        about_rows = {"config_hash": stored.config_hash, "superseded": list(stored.superseded)}
        counts.append({"method": method, "seed": seed, **about_rows, **size_of(matched), **stored.counts})
        extra = _said(matched, handling)
        for protocol in protocols:
            metric = score_matched(matched, protocol)
            scores.setdefault((protocol.name, method), []).append(metric)
            about = (TASK, method, backbone, data.name, data.split, protocol.name)
            num_pairs = counts[-1]["pairs"]
            for name, value in metric.compute().items():
                records.append(MetricRecord(*about, name, 100 * float(value), num_pairs, seed, extra))
            for row in (row for name in by for row in breakdown(matched, protocol, name)):
                part = {"group": f"{row.by}={row.group}", **extra}
                records.append(MetricRecord(*about, row.metric, row.value, row.num_pairs, seed, part))
    if not counts:
        raise ProtocolError(
            f"expected predictions of these {len(data.pairs)} pairs in {str(run.folder)!r}, found those of "
            "other pairs alone: choose the data that they were made on"
        )
    if against and against not in {method for _, method in scores}:
        raise ProtocolError(
            f"expected predictions of {against!r} for these pairs, found those of others alone"
        )
    comparisons: list[dict[str, Any]] = []
    for protocol in protocols if against else ():
        for method in dict.fromkeys(method for _, method in scores if method != against):
            pair = scores[protocol.name, method], scores[protocol.name, str(against)]
            comparisons += _compare(protocol, data.name, method, str(against), *pair)
    return Scores(records, comparisons, counts)


def load_protocols(names: Sequence[str]) -> list[PointProtocol]:
    """The point protocols of ``configs/protocol``, each once.

    Raises:
        UnknownNameError: no such protocol.
        ProtocolError: it is one for masks.
    """
    found = []
    for name in dict.fromkeys(names):
        protocol = instantiate(load_option("protocol", name))
        if not isinstance(protocol, PointProtocol):
            raise ProtocolError(f"expected a protocol for points, found {name!r}, which scores masks")
        found.append(protocol)
    return found


def size_of(matched: Matched) -> dict[str, int]:
    """How many pairs and points are scored."""
    return {
        "pairs": len(set(matched.columns.owner[matched.scored].tolist())),
        "points": int(matched.scored.sum()),
    }


def _said(matched: Matched, handling: Handling) -> dict[str, str]:
    """What a number has to say of itself: the choices that changed what it is over."""
    return {k: str(v) for k, v in asdict(handling).items() if matched.counts[k]}


def _compare(
    protocol: PointProtocol, data: str, method: str, against: str, a: list[PCK], b: list[PCK]
) -> Iterator[dict[str, Any]]:
    for metric in a[0].names():
        interval = compare_points(a, b, metric).times(100)
        yield comparison(protocol.name, TASK, data, method, against, metric, interval, len(a))
