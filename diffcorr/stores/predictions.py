"""Point predictions on disk: stored once, scored under any protocol without the model."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from diffcorr.errors import StoreError
from diffcorr.stores.files import unique_name, writable_folder, write_atomic
from diffcorr.types import PointPrediction

SCHEMA = pa.schema(
    [
        ("method", pa.string()),
        ("seed", pa.int64()),
        ("pair_id", pa.string()),
        ("keypoint", pa.string()),
        ("query_id", pa.string()),
        ("x", pa.float64()),
        ("y", pa.float64()),
        ("confidence", pa.float64()),
        (
            "layer_points",
            pa.list_(pa.struct([("layer", pa.string()), ("x", pa.float64()), ("y", pa.float64())])),
        ),
        ("config_hash", pa.string()),
        (
            "round_points",
            pa.list_(pa.struct([("round", pa.int64()), ("x", pa.float64()), ("y", pa.float64())])),
        ),
    ]
)
"""One row per (method, seed, pair, keypoint); x and y in pixels of the original target image."""

_ADDED_LATER = {"round_points"}
"""Columns that old shards lack; they are read as null."""

Key = tuple[str, int, str, str]
"""(method, seed, pair id, keypoint), what identifies a row."""


class PredictionStore(AbstractContextManager["PredictionStore"]):
    """Append-only store of :class:`~diffcorr.types.PointPrediction` rows in parquet shards.

    Args:
        folder: where the shards lie; created where missing.
        on_duplicate: what a second prediction of the same method, seed, pair and keypoint means:
            ``"error"`` refuses it, ``"replace"`` lets the last one written win.
        rows_per_shard: a full buffer of this many rows is flushed by itself.

    Raises:
        StoreError: the folder cannot be written, or a shard in it is damaged.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        on_duplicate: Literal["error", "replace"] = "error",
        rows_per_shard: int = 512,
    ) -> None:
        self.folder = writable_folder(folder)
        self.on_duplicate = on_duplicate
        self.rows_per_shard = rows_per_shard
        self._buffer: list[dict[str, Any]] = []
        self._keys = set(_keys(self._load()))

    def __len__(self) -> int:
        """How many (method, seed, pair, keypoint) this store has seen."""
        return len(self._keys)

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.flush()

    def add(self, method: str, seed: int, predictions: Iterable[PointPrediction], config_hash: str) -> None:
        """Keep the predictions of one method under one seed; all of them or, on an error, none.

        Raises:
            StoreError: a prediction is there already (see ``on_duplicate``) or is not finite.
        """
        rows: list[dict[str, Any]] = [
            {
                "method": method,
                "seed": int(seed),
                "pair_id": prediction.pair_id,
                "keypoint": prediction.keypoint,
                "query_id": prediction.query_id,
                "x": float(prediction.x),
                "y": float(prediction.y),
                "confidence": float(prediction.confidence),
                "layer_points": [
                    {"layer": layer, "x": float(x), "y": float(y)}
                    for layer, (x, y) in prediction.layer_points.items()
                ],
                "config_hash": config_hash,
                "round_points": [
                    {"round": int(number), "x": float(x), "y": float(y)}
                    for number, (x, y) in prediction.round_points.items()
                ],
            }
            for prediction in predictions
        ]
        new: set[Key] = set()
        for row in rows:
            key = (method, int(seed), row["pair_id"], row["keypoint"])
            if not (math.isfinite(row["x"]) and math.isfinite(row["y"])):
                raise StoreError(f"expected finite points, found ({row['x']}, {row['y']}) for {_say(key)}")
            if self.on_duplicate == "error" and (key in self._keys or key in new):
                raise StoreError(_duplicate(key, self.folder))
            new.add(key)
        self._keys |= new
        self._buffer += rows
        if len(self._buffer) >= self.rows_per_shard:
            self.flush()

    def flush(self) -> None:
        """Write all buffered rows as one shard, whole or not at all."""
        if not self._buffer:
            return
        table = pa.Table.from_pylist(self._buffer, SCHEMA)
        path = self.folder / f"predictions-{unique_name()}.parquet"
        write_atomic(path, lambda to: pq.write_table(table, to))
        self._buffer.clear()

    def read(self, method: str | None = None, seed: int | None = None) -> pa.Table:
        """All rows (of one method, of one seed) with the columns of :data:`SCHEMA`.

        Raises:
            StoreError: two shards hold the same row (several writers) and ``on_duplicate`` is
                ``"error"``.
        """
        self.flush()
        table = self._load()
        if method is not None:
            table = table.filter(pc.equal(table["method"], method))
        if seed is not None:
            table = table.filter(pc.equal(table["seed"], seed))
        last: dict[Key, int] = {}
        for row, key in enumerate(_keys(table)):
            if key in last and self.on_duplicate == "error":
                raise StoreError(_duplicate(key, self.folder))
            last[key] = row
        return table if len(last) == len(table) else table.take(sorted(last.values()))

    def predictions(self, method: str, seed: int) -> list[PointPrediction]:
        """The predictions of one method under one seed, in the order in which they were added."""
        return [
            PointPrediction(
                pair_id=row["pair_id"],
                keypoint=row["keypoint"],
                query_id=row["query_id"],
                x=row["x"],
                y=row["y"],
                confidence=row["confidence"],
                layer_points={point["layer"]: (point["x"], point["y"]) for point in row["layer_points"]},
                round_points={p["round"]: (p["x"], p["y"]) for p in row["round_points"] or ()},
            )
            for row in self.read(method, seed).to_pylist()
        ]

    def pair_ids(self, method: str, seed: int, config_hash: str) -> set[str]:
        """The pairs that this method, seed and configuration have predicted: what a resumed run skips."""
        table = self.read(method, seed)
        return set(table.filter(pc.equal(table["config_hash"], config_hash))["pair_id"].to_pylist())

    def _load(self) -> pa.Table:
        return pa.concat_tables([SCHEMA.empty_table(), *map(_read_shard, _shards(self.folder))])


def read_predictions(folder: str | os.PathLike[str], columns: Sequence[str] | None = None) -> pa.Table:
    """All rows of a store in the order in which they were written, duplicates included.

    Opens nothing for writing, so that a store on a disk that is only read can be scored.

    Args:
        folder: of a :class:`PredictionStore`.
        columns: names in :data:`SCHEMA`; all of them where None.

    Raises:
        StoreError: there are no predictions in the folder, or a shard is damaged.
    """
    shards = _shards(Path(folder))
    if not shards:
        raise StoreError(
            f"expected stored predictions (predictions-*.parquet) in {str(folder)!r}, found none: name the "
            "predictions folder of a run"
        )
    return pa.concat_tables([_read_shard(path, columns) for path in shards])


def _shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("predictions-*.parquet"))


def _read_shard(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    try:
        lacking = set(SCHEMA.names) - set(pq.read_schema(path).names) - _ADDED_LATER
        if not lacking:
            wanted = None if columns is None else list(columns)
            return pq.read_table(path, schema=SCHEMA, columns=wanted, partitioning=None)
        cause: Exception | None = None
    except (pa.ArrowException, OSError) as error:
        cause = error
    raise StoreError(
        f"expected a shard of predictions, found {str(path)!r} damaged: delete that file and predict again"
    ) from cause


def _keys(table: pa.Table) -> list[Key]:
    columns = [table[name].to_pylist() for name in ("method", "seed", "pair_id", "keypoint")]
    return list(zip(*columns, strict=True))


def _say(key: Key) -> str:
    method, seed, pair_id, keypoint = key
    return f"method {method!r}, seed {seed}, pair {pair_id!r}, keypoint {keypoint!r}"


def _duplicate(key: Key, folder: Path) -> str:
    return (
        f"expected each prediction once, found a second one of {_say(key)} in {str(folder)!r}: "
        'choose another folder, or on_duplicate="replace"'
    )
