"""Stored predictions brought into the order of a list of pairs, and what does not fit it.

Nothing is left out and nothing counted as wrong unless the caller says so, and then it is counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from diffcorr.errors import ProtocolError, UnknownNameError
from diffcorr.metrics.columns import Floats, Ints, PairColumns
from diffcorr.types import PointPrediction

CHOICES = {
    "missing": ("error", "skip", "wrong"),
    "unknown": ("error", "skip"),
    "duplicates": ("error", "first", "last"),
    "nan": ("error", "skip", "wrong"),
}


@dataclass(frozen=True)
class Handling:
    """What becomes of predictions that do not fit the pairs; ``error`` refuses them.

    Attributes:
        missing: a keypoint without a prediction: ``skip`` scores the others alone, ``wrong`` counts it.
        unknown: a prediction of a pair or keypoint that is not in the list: ``skip`` leaves it out.
        duplicates: several predictions of a keypoint: ``first`` or ``last``, as they were stored.
        nan: a prediction that is not finite: as ``missing``.

    Raises:
        UnknownNameError: a choice that there is not.
    """

    missing: Literal["error", "skip", "wrong"] = "error"
    unknown: Literal["error", "skip"] = "error"
    duplicates: Literal["error", "first", "last"] = "error"
    nan: Literal["error", "skip", "wrong"] = "error"

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if (value := getattr(self, name)) not in choices:
                raise UnknownNameError(f"way to handle {name} predictions", value, choices)


@dataclass(frozen=True)
class Matched:
    """The predictions of one method for a list of pairs.

    Attributes:
        columns: the pairs.
        points: (N, 2) predicted points in the order of the pairs' keypoints; NaN counts as wrong.
        scored: (N,) whether the keypoint is scored.
        counts: how many there were of each kind in `Handling`, all of them handled.
    """

    columns: PairColumns
    points: Floats
    scored: npt.NDArray[np.bool_]
    counts: Mapping[str, int]


def match_points(
    columns: PairColumns, predictions: Iterable[PointPrediction], handling: Handling | None = None
) -> Matched:
    """Match predictions to pairs by pair id and keypoint; see `match_table`."""
    rows = [(p.pair_id, p.keypoint, p.x, p.y) for p in predictions]
    names, types = ("pair_id", "keypoint", "x", "y"), (pa.string(), pa.string(), pa.float64(), pa.float64())
    values = zip(*rows, strict=True) if rows else ((),) * 4
    table = pa.table({n: pa.array(v, t) for n, v, t in zip(names, values, types, strict=True)})
    return match_table(columns, table, handling)


def match_table(columns: PairColumns, table: pa.Table, handling: Handling | None = None) -> Matched:
    """Match the rows of a store, of one method and seed, to pairs by pair id and keypoint.

    Args:
        columns: the pairs.
        table: columns ``pair_id``, ``keypoint``, ``x`` and ``y``, (x, y) in original pixels of the target.
        handling: what to do with rows that do not fit; by default everything is refused.

    Raises:
        ProtocolError: there are such and `handling` says ``error``, or nothing is left to score.
    """
    handling = handling or Handling()
    place = keypoint_places(columns, table)
    _refuse(columns, "unknown", handling.unknown, table, np.flatnonzero(place < 0))
    rows = np.flatnonzero(place >= 0)
    owners = place[rows]

    repeated = np.ones(len(rows), dtype=bool)
    repeated[np.unique(owners, return_index=True)[1]] = False
    _refuse(columns, "duplicates", handling.duplicates, table, rows[repeated])
    if handling.duplicates == "last":
        rows, owners = rows[::-1], owners[::-1]
    owners, first = np.unique(owners, return_index=True)
    rows = rows[first]

    points = np.full((len(columns.owner), 2), np.nan)
    points[owners] = np.stack([table[name].to_numpy()[rows] for name in ("x", "y")], 1)
    found = np.zeros(len(points), dtype=bool)
    found[owners] = True
    broken = ~np.isfinite(points).all(1)
    points[broken] = np.nan
    nan, missing = broken & found, ~found
    _refuse(columns, "nan", handling.nan, table, rows[nan[owners]])
    if missing.any() and handling.missing == "error":
        raise ProtocolError(_say_missing(columns, missing))
    scored = np.ones(len(points), dtype=bool)
    for kind, choice in ((nan, handling.nan), (missing, handling.missing)):
        if choice == "skip":
            scored &= ~kind
    if not scored.any():
        raise ProtocolError(f"none of the {len(points)} keypoints has a prediction; nothing is left to score")
    counts = {
        "missing": int(missing.sum()),
        "unknown": int((place < 0).sum()),
        "duplicates": int(repeated.sum()),
        "nan": int(nan.sum()),
    }
    return Matched(columns, points, scored, counts)


def keypoint_places(columns: PairColumns, table: pa.Table) -> Ints:
    """For each row the place of its keypoint among all of the pairs, -1 where there is none."""
    names = sorted({name for pair in columns.pairs for name in pair.keypoints})
    number = {name: place for place, name in enumerate(names)}
    keypoint = np.array([number[name] for pair in columns.pairs for name in pair.keypoints], dtype=np.int64)
    # one number for (pair, keypoint), looked up in the sorted list of all that there are
    codes = columns.owner * len(names) + keypoint
    order = np.argsort(codes)
    pair_ids = pa.array([pair.pair_id for pair in columns.pairs], pa.string())
    row_pair, row_keypoint = (
        pc.fill_null(pc.index_in(table[name].cast(pa.string()), value_set=known), -1).to_numpy()
        for name, known in (("pair_id", pair_ids), ("keypoint", pa.array(names, pa.string())))
    )
    wanted = row_pair.astype(np.int64) * len(names) + row_keypoint
    slot = np.minimum(np.searchsorted(codes[order], wanted), len(codes) - 1)
    known_row = (row_pair >= 0) & (row_keypoint >= 0) & (codes[order][slot] == wanted)
    return np.where(known_row, order[slot], -1)


_REFUSALS = {
    "unknown": (
        "that {pairs} pairs to score do not have",
        "score the data set that they were made for, or leave them out with unknown=skip",
    ),
    "duplicates": (
        "beyond the first of their keypoint",
        "choose one with duplicates=first or duplicates=last",
    ),
    "nan": ("that are not finite", "predict them again, or choose nan=skip or nan=wrong"),
}


def _refuse(columns: PairColumns, kind: str, choice: str, table: pa.Table, rows: Ints) -> None:
    """ProtocolError where there are such rows and the choice is ``error``."""
    if choice != "error" or not len(rows):
        return
    first = table.slice(int(rows.min()), 1).to_pylist()[0]
    what, remedy = _REFUSALS[kind]
    raise ProtocolError(
        f"found {len(rows)} predictions {what.format(pairs=len(columns.pairs))}, the first of pair "
        f"{first['pair_id']!r}, keypoint {first['keypoint']!r}; {remedy}"
    )


def _say_missing(columns: PairColumns, missing: npt.NDArray[np.bool_]) -> str:
    owner = columns.owner[missing][0]
    start = columns.starts[owner]
    pair = columns.pairs[owner]
    names = [name for place, name in enumerate(pair.keypoints) if missing[start + place]]
    return (
        f"pair {pair.pair_id!r} has no prediction for {', '.join(names)}; predict it before scoring "
        f"({int(missing.sum())} of {len(missing)} keypoints are missing), or choose missing=skip or "
        "missing=wrong"
    )
