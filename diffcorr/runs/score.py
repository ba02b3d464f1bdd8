"""Stored predictions under any protocols: no model, no image, no training run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from diffcorr.config import instantiate, load_option
from diffcorr.errors import DataError, ProtocolError, UnknownNameError
from diffcorr.metrics import (
    PCK,
    Handling,
    Matched,
    PointProtocol,
    breakdown,
    compare_points,
    match_table,
    pair_columns,
    score_matched,
)
from diffcorr.runs.common import comparison
from diffcorr.stores.predictions import read_predictions
from diffcorr.stores.records import MetricRecord
from diffcorr.types import PairDataset

TASK = "correspondence"
BACKBONE = "stored"
"""What records say instead of a backbone: a store holds points, not what made them."""


@dataclass(frozen=True)
class Scores:
    """What became of stored predictions.

    Attributes:
        records: a score for each method, seed, protocol and metric, and for each part of a breakdown.
        comparisons: differences of the methods to one of them, in points of percent.
        counts: for each method and seed the pairs and points scored, and what was handled (`Handling`).
    """

    records: list[MetricRecord]
    comparisons: list[dict[str, Any]]
    counts: list[dict[str, Any]]


def score_stored(
    folder: str | Path,
    data: PairDataset,
    protocols: Sequence[PointProtocol],
    *,
    handling: Handling | None = None,
    methods: Sequence[str] | None = None,
    by: Sequence[str] = (),
    against: str | None = None,
) -> Scores:
    """Score every method and seed of a store.

    Args:
        folder: of the predictions.
        data: the pairs.
        protocols: one or more.
        handling: of predictions that do not fit the pairs; by default they are refused. A record of a
            method where something was left out or counted as wrong says so in its group.
        methods: which of the methods; None for all.
        by: breakdowns, see `diffcorr.metrics.breakdown`.
        against: a method that the others are compared to, each method's mean over its seeds.

    Raises:
        StoreError: no predictions.
        UnknownNameError: no such method, breakdown or tag.
        ProtocolError: predictions do not fit the pairs, or a pair cannot be scored.
    """
    handling = handling or Handling()
    columns = pair_columns(data.pairs)
    table = read_predictions(folder, ("method", "seed", "pair_id", "keypoint", "x", "y"))
    known = sorted(set(table["method"].to_pylist()))
    for name in [*(methods or ()), *([against] if against else ())]:
        if name not in known:
            raise UnknownNameError("method in the store", name, known)
    wanted = [name for name in known if not methods or name in methods or name == against]
    if against and len(wanted) < 2:
        raise ProtocolError(f"expected another method to compare {against!r} to, found none in the store")

    records: list[MetricRecord] = []
    counts: list[dict[str, Any]] = []
    scores: dict[tuple[str, str], list[PCK]] = {}
    for method, seed, rows in _methods_and_seeds(table, wanted):
        try:
            matched = match_table(columns, rows, handling)
        except ProtocolError as error:
            raise ProtocolError(f"{method}, seed {seed}: {error}") from error
        counts.append({"method": method, "seed": seed, **_size(matched), **matched.counts})
        extra = _said(matched, handling)
        for protocol in protocols:
            metric = score_matched(matched, protocol)
            scores.setdefault((protocol.name, method), []).append(metric)
            about = (TASK, method, BACKBONE, data.name, data.split, protocol.name)
            num_pairs = counts[-1]["pairs"]
            for name, value in metric.compute().items():
                records.append(MetricRecord(*about, name, 100 * float(value), num_pairs, seed, extra))
            for row in (row for name in by for row in breakdown(matched, protocol, name)):
                part = {"group": f"{row.by}={row.group}", **extra}
                records.append(MetricRecord(*about, row.metric, row.value, row.num_pairs, seed, part))
    comparisons: list[dict[str, Any]] = []
    for protocol in protocols:
        for method in wanted if against else ():
            if method != against:
                pair = scores[protocol.name, method], scores[protocol.name, str(against)]
                comparisons += _compare(protocol, data.name, method, str(against), *pair)
    return Scores(records, comparisons, counts)


def load_data(name: str, options: dict[str, object]) -> PairDataset:
    """The pairs of ``configs/data/<name>.yaml`` with options changed.

    Raises:
        UnknownNameError: no such data set.
        DataError: it has no pairs.
    """
    data = instantiate(load_option("data", name), **options)
    if not isinstance(data, PairDataset) or not data.pairs:
        raise DataError(
            f"expected a data set with pairs, found none in {name!r}; choose another or its options"
        )
    return data


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


def _methods_and_seeds(table: pa.Table, methods: Sequence[str]) -> Iterator[tuple[str, int, pa.Table]]:
    for method in methods:
        rows = table.filter(pc.equal(table["method"], method))
        for seed in sorted(set(rows["seed"].to_pylist())):
            yield method, seed, rows.filter(pc.equal(rows["seed"], seed))


def _size(matched: Matched) -> dict[str, int]:
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
