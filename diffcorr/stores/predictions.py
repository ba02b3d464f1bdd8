"""Point predictions on disk: stored once, scored under any protocol without the model."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from diffcorr.errors import StoreError
from diffcorr.stores.files import remove_drafts, set_aside, unique_name, writable_folder, write_atomic
from diffcorr.stores.journal import Journal
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
"""One row per (method, seed, config_hash, pair, keypoint); x and y in pixels of the original target image."""

_ADDED_LATER = {"round_points"}
"""Columns that old shards lack; they are read as null."""

Key = tuple[str, int, str, str, str]
"""(method, seed, configuration, pair id, keypoint), what identifies a row."""

_MARK = "newest"
"""How files begin that say which configuration was used, as shards begin with ``predictions``."""


class PredictionStore(AbstractContextManager["PredictionStore"]):
    """Append-only store of :class:`~diffcorr.types.PointPrediction` rows in parquet shards.

    A method that runs again with other settings adds the rows of another configuration; those of the
    first stay, and a reader has to say which it means (:func:`configurations` tells the newest).

    Any number of processes may add to one folder at the same time. What was added is on record at once, in
    a journal beside the shards (``predictions-*.jsonl``) that the next flush replaces by a shard: a process
    that is killed loses nothing that was added. Damaged shards, and the damaged lines of a journal, are set
    aside (``damaged/``) when a store is opened, and their rows are missing.

    Args:
        folder: where the shards lie; created where missing.
        rows_per_shard: a full buffer of this many rows is flushed by itself.
        journal: whether rows are on record before they are flushed; False where only all of them are of use.

    Raises:
        StoreError: the folder cannot be written.
    """

    def __init__(
        self, folder: str | os.PathLike[str], rows_per_shard: int = 512, journal: bool = True
    ) -> None:
        self.folder = writable_folder(folder)
        self.rows_per_shard = rows_per_shard
        self._journaled = journal
        self._buffer: list[dict[str, Any]] = []
        self._journal: Journal | None = None
        remove_drafts(self.folder)
        _set_damaged_aside(self.folder)
        self._keys = set(_keys(self._load()))

    def __len__(self) -> int:
        """How many (method, seed, configuration, pair, keypoint) this store has seen."""
        return len(self._keys)

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.flush()

    def add(self, method: str, seed: int, predictions: Iterable[PointPrediction], config_hash: str) -> None:
        """Keep the predictions of one method, seed and configuration; all of them or, on an error, none.

        Raises:
            StoreError: a prediction is there already, or is not finite.
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
            key = (method, int(seed), config_hash, row["pair_id"], row["keypoint"])
            if not (math.isfinite(row["x"]) and math.isfinite(row["y"])):
                raise StoreError(f"expected finite points, found ({row['x']}, {row['y']}) for {_say(key)}")
            if key in self._keys or key in new:
                raise StoreError(_duplicate(key, self.folder))
            new.add(key)
        if self._journaled:
            if self._journal is None:
                self._journal = Journal(self.folder / f"predictions-{unique_name()}.jsonl")
            self._journal.append({"rows": rows})
        self._keys |= new
        self._buffer += rows
        if len(self._buffer) >= self.rows_per_shard:
            self.flush()

    def flush(self) -> None:
        """Write all buffered rows as one shard, whole or not at all."""
        if not self._buffer:
            return
        journal, self._journal = self._journal, None
        name = journal.path.stem if journal else f"predictions-{unique_name()}"
        _write_shard(self._buffer, self.folder / f"{name}.parquet")
        if journal:
            journal.remove()
        self._buffer.clear()

    def renew(self, method: str, seed: int, config_hash: str) -> None:
        """Make a configuration the newest of its method and seed, where another one was written later.

        For a run that finds all its predictions stored although a run of other settings came between.
        """
        self.flush()
        if configurations(self.folder).get((method, int(seed)), [config_hash])[-1] == config_hash:
            return
        mark = json.dumps({"method": method, "seed": int(seed), "config_hash": config_hash})
        path = self.folder / f"{_MARK}-{unique_name()}.json"
        write_atomic(path, lambda to: to.write_text(mark + "\n", encoding="utf-8"))

    def read(
        self, method: str | None = None, seed: int | None = None, config_hash: str | None = None
    ) -> pa.Table:
        """All rows (of one method, seed or configuration) with the columns of :data:`SCHEMA`.

        A row that several writers added alike is read once.

        Raises:
            StoreError: several writers added other points for the same row.
        """
        self.flush()
        table = self._load()
        for name, value in (("method", method), ("seed", seed), ("config_hash", config_hash)):
            if value is not None:
                table = table.filter(pc.equal(table[name], value))
        table = once(table)
        seen: set[Key] = set()
        for key in _keys(table):
            if key in seen:
                raise StoreError(_duplicate(key, self.folder))
            seen.add(key)
        return table

    def predictions(self, method: str, seed: int, config_hash: str | None = None) -> list[PointPrediction]:
        """The predictions of one method, seed and configuration, in the order in which they were added.

        Raises:
            StoreError: ``config_hash`` is None and there are several configurations.
        """
        table = self.read(method, seed, config_hash)
        found = table["config_hash"].unique().to_pylist()
        if len(found) > 1:
            raise StoreError(
                f"expected one configuration of {method!r}, seed {seed}, in {str(self.folder)!r}, found "
                f"{', '.join(found)}: name one as config_hash"
            )
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
            for row in table.to_pylist()
        ]

    def pair_ids(self, method: str, seed: int, config_hash: str) -> set[str]:
        """The pairs that this method, seed and configuration have predicted: what a resumed run skips."""
        return set(self.read(method, seed, config_hash)["pair_id"].to_pylist())

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


def configurations(folder: str | os.PathLike[str]) -> dict[tuple[str, int], list[str]]:
    """The configurations of each (method, seed) in a store, the one that was used last at the end.

    Raises:
        StoreError: a shard is damaged.
    """
    names = ("method", "seed", "config_hash")
    newest: dict[tuple[str, int], dict[str, None]] = {}
    files = [*_shards(Path(folder)), *Path(folder).glob(f"{_MARK}-*.json")]
    for path in sorted(files, key=lambda path: path.stem.partition("-")[2]):  # by time of writing
        if path.suffix == ".json":
            mark = json.loads(path.read_text(encoding="utf-8"))
            rows = [tuple(mark[name] for name in names)]
        else:
            columns = _read_shard(path, names).to_pydict()
            rows = list(dict.fromkeys(zip(*(reversed(columns[name]) for name in names), strict=True)))[::-1]
        for method, seed, config_hash in rows:
            known = newest.setdefault((method, seed), {})
            known.pop(config_hash, None)  # what is used again moves to the end
            known[config_hash] = None
    return {key: list(known) for key, known in newest.items()}


def once(table: pa.Table) -> pa.Table:
    """The rows without those that repeat an earlier one: same key, same point, to the last bit."""
    names = ["method", "seed", "config_hash", "pair_id", "keypoint", "x", "y"]
    keys = table.select(names).append_column("row", pa.array(range(len(table)), pa.int64()))
    first = keys.group_by(names, use_threads=False).aggregate([("row", "min")])["row_min"]
    return table if len(first) == len(table) else table.take(first.sort())


def _shards(folder: Path) -> list[Path]:
    """Shards and journals by time of writing."""
    return sorted([*folder.glob("predictions-*.parquet"), *folder.glob("predictions-*.jsonl")])


def _write_shard(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    table = pa.Table.from_pylist(list(rows), SCHEMA)
    write_atomic(path, lambda to: pq.write_table(table, to, write_page_checksum=True))


def _read_shard(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of a shard, or the whole ones of a journal, which another process may be writing.

    Raises:
        StoreError: a damaged shard.
    """
    try:
        if path.suffix == ".jsonl":
            try:
                return _journal_table(Journal.read(path)[0]).select(columns or SCHEMA.names)
            except FileNotFoundError:  # its writer has just made a shard of it
                path = path.with_suffix(".parquet")
        lacking = set(SCHEMA.names) - set(pq.read_schema(path).names) - _ADDED_LATER
        if not lacking:
            wanted = None if columns is None else list(columns)
            return pq.read_table(
                path, schema=SCHEMA, columns=wanted, partitioning=None, page_checksum_verification=True
            )
        cause: Exception | None = None
    except (pa.ArrowException, OSError) as error:
        cause = error
    raise StoreError(
        f"expected a shard of predictions, found {str(path)!r} damaged: delete that file and predict again"
    ) from cause


def _journal_table(records: Sequence[Mapping[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist([row for record in records for row in record["rows"]], SCHEMA)


def _set_damaged_aside(folder: Path) -> None:
    """Move damaged shards away, and damaged journals when their whole records are in a shard."""
    for path in _shards(folder):
        if path.suffix == ".parquet":
            try:
                _read_shard(path)
            except StoreError as error:
                set_aside(path, str(error.__cause__ or "a column is missing").splitlines()[0])
            continue
        with suppress(FileNotFoundError):
            records, damaged = Journal.read(path)
            if damaged:
                rows = [row for record in records for row in record["rows"]]
                shard = path.with_suffix(".parquet")
                if rows and not shard.exists():  # a crash between a shard and the end of its journal
                    _write_shard(rows, shard)
                set_aside(path, f"{damaged} damaged lines, {len(rows)} rows kept")


def _keys(table: pa.Table) -> list[Key]:
    names = ("method", "seed", "config_hash", "pair_id", "keypoint")
    return list(zip(*(table[name].to_pylist() for name in names), strict=True))


def _say(key: Key) -> str:
    method, seed, _, pair_id, keypoint = key
    return f"method {method!r}, seed {seed}, pair {pair_id!r}, keypoint {keypoint!r}"


def _duplicate(key: Key, folder: Path) -> str:
    return (
        f"expected each prediction once, found a second one of {_say(key)} in {str(folder)!r}: "
        "choose another folder"
    )
