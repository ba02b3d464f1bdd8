"""Predictions of other systems, from CSV or JSON into a store: :func:`import_predictions`.

A CSV file has a head with the names of its columns, a JSON file is a list of objects with them as keys:

============  =======================================================================================
pair_id       id of the pair in its data set
keypoint      name of the keypoint in that pair (a number is taken as its name)
x, y          where it was found, in pixels of the original target image, pixel centres at +0.5
confidence    optional; any finite number, unknown (NaN) where it is left out or empty
seed          optional; an integer from 0, by default the one that the caller gives
============  =======================================================================================

A file is imported as a whole or, on an error, not at all. Nothing is guessed: another column, a point that
is not finite or a second prediction of a keypoint is a one-line error that names the line or entry.
"""

from __future__ import annotations

import csv
import io
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from diffcorr.errors import StoreError
from diffcorr.stores.predictions import PredictionStore
from diffcorr.types import PointPrediction

REQUIRED = ("pair_id", "keypoint", "x", "y")
OPTIONAL = ("confidence", "seed")
CONFIGURATION = "import"

Row = tuple[str, Mapping[str, Any]]
"""Where it stands in the file, in words, and its values by column."""


def import_predictions(
    file: str | os.PathLike[str], store: str | os.PathLike[str], method: str, seed: int = 0
) -> int:
    """Add the predictions in a file to a store.

    Imported rows have no query id, and ``import`` as their configuration: several files make one method.

    Args:
        file: ``.csv`` or ``.json``, in UTF-8.
        store: folder of a :class:`~diffcorr.stores.PredictionStore`; created where missing.
        method: the name that the predictions are scored under.
        seed: of rows that name none.

    Returns:
        How many predictions were added.

    Raises:
        StoreError: the file cannot be read or breaks a rule of this module, the store has one of its
            predictions already or a run's own under that name, or cannot be written. The store is then as
            it was.
    """
    path = Path(file)
    if not method.strip():
        raise StoreError("expected the name of the method that made the predictions, found none: name it")
    if seed < 0:
        raise StoreError(f"expected a seed from 0, found {seed}: choose another")
    rows = list(_rows(path, _content(path)))
    if not rows:
        raise StoreError(f"expected one or more predictions in {str(path)!r}, found none")
    by_seed: dict[int, list[PointPrediction]] = {}
    seen: dict[tuple[int, str, str], str] = {}
    for where, row in rows:
        number, prediction = _prediction(path, where, row, seed)
        key = (number, prediction.pair_id, prediction.keypoint)
        if key in seen:
            raise StoreError(
                f"expected each prediction once in {str(path)!r}, found pair {key[1]!r}, keypoint "
                f"{key[2]!r}, seed {number} in {seen[key]} and in {where}: delete one"
            )
        seen[key] = where
        by_seed.setdefault(number, []).append(prediction)
    # one shard, written when all rows have been accepted
    target = PredictionStore(store, rows_per_shard=len(rows) + 1, journal=False)
    if set(target.read(method)["config_hash"].to_pylist()) - {CONFIGURATION}:
        raise StoreError(
            f"expected a name that no method of {str(store)!r} has, found {method!r}, whose predictions are "
            "a run's own: import under another name"
        )
    for number, predictions in sorted(by_seed.items()):
        target.add(method, number, predictions, CONFIGURATION)
    target.flush()
    return len(rows)


def _content(path: Path) -> str:
    try:
        # utf-8-sig: spreadsheets put a byte order mark before the first column's name
        return path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise StoreError(f"expected a file of predictions, cannot read {str(path)!r}: {reason}") from error


def _rows(path: Path, content: str) -> Iterator[Row]:
    if path.suffix.lower() == ".csv":
        return _csv_rows(path, content)
    if path.suffix.lower() == ".json":
        return _json_rows(path, content)
    raise StoreError(f"expected a .csv or .json file of predictions, found {str(path)!r}: convert it")


def _csv_rows(path: Path, content: str) -> Iterator[Row]:
    reader = csv.reader(io.StringIO(content, newline=""), strict=True)
    try:
        head = [name.strip() for name in next(reader, [])]
        _check_names(path, "the first line", head)
        for values in reader:
            where = f"line {reader.line_num}"
            if not values:
                continue
            if len(values) != len(head):
                raise StoreError(
                    f"expected {len(head)} values in {where} of {str(path)!r}, found {len(values)}: is the "
                    "file cut off, or a comma not quoted?"
                )
            yield where, dict(zip(head, (value.strip() for value in values), strict=True))
    except csv.Error as error:
        raise StoreError(
            f"expected CSV, found an error in line {reader.line_num} of {str(path)!r}: {error}"
        ) from error


def _json_rows(path: Path, content: str) -> Iterator[Row]:
    try:
        entries = json.loads(content)
    except ValueError as error:
        raise StoreError(
            f"expected JSON in {str(path)!r}, found an error ({error}): is the file cut off?"
        ) from error
    if not isinstance(entries, list):
        raise StoreError(
            f"expected a JSON list of predictions in {str(path)!r}, found {type(entries).__name__}"
        )
    for number, entry in enumerate(entries, start=1):
        where = f"entry {number}"
        if not isinstance(entry, dict):
            raise StoreError(f"expected an object as {where} of {str(path)!r}, found {type(entry).__name__}")
        _check_names(path, where, list(entry))
        yield where, entry


def _check_names(path: Path, where: str, names: list[str]) -> None:
    missing = [name for name in REQUIRED if name not in names]
    strange = [name for name in names if name not in REQUIRED + OPTIONAL]
    if missing or strange or len(set(names)) != len(names):
        raise StoreError(
            f"expected the columns {', '.join(REQUIRED)} and optionally {', '.join(OPTIONAL)} in {where} of "
            f"{str(path)!r}, found {', '.join(names) or 'none'}"
        )


def _prediction(path: Path, where: str, row: Mapping[str, Any], seed: int) -> tuple[int, PointPrediction]:
    def wrong(name: str, wanted: str) -> StoreError:
        return StoreError(f"expected {wanted} as {name} in {where} of {str(path)!r}, found {row.get(name)!r}")

    def number(name: str) -> float:
        value = row[name]
        try:
            found = float("nan" if isinstance(value, bool) else value)
        except (TypeError, ValueError, OverflowError):
            found = math.nan
        if not math.isfinite(found):
            raise wrong(name, "a finite number")
        return found

    def text(name: str) -> str:
        value = row[name]
        if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
            raise wrong(name, "a name")
        return str(value)

    given = row.get("seed")
    if given not in (None, ""):
        try:
            # "1.5" and 1.5 are no seeds; int(1.5) would make one of it
            seed = int(str(given))
        except ValueError:
            seed = -1
        if seed < 0 or isinstance(given, bool):
            raise wrong("seed", "an integer from 0")
    confidence = math.nan if row.get("confidence") in (None, "") else number("confidence")
    return seed, PointPrediction(text("pair_id"), text("keypoint"), "", number("x"), number("y"), confidence)
