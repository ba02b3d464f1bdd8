"""CSV and JSON annotation files, with errors that name the file and the line."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from diffcorr.errors import DataError


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        DataError: it is missing, cut off or no JSON.
    """
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        raise DataError(f"expected an annotation, found no file at {path}; restore it") from None
    except (ValueError, OSError, RecursionError) as error:
        raise DataError(
            f"expected JSON in {path}, found {error}; the file may be cut off: restore it"
        ) from None


def read_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """(line number, cells) of every line of a CSV file that is not empty, the header included.

    Raises:
        DataError: it is missing or no text.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            for cells in reader:
                if any(cell.strip() for cell in cells):
                    yield reader.line_num, [cell.strip() for cell in cells]
    except FileNotFoundError:
        raise DataError(f"expected a list of pairs, found no file at {path}; restore it") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"expected a CSV file at {path}, found {error}; restore it") from None


def read_records(path: Path, required: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """(line number, cells by column) of a CSV file with a header.

    Raises:
        DataError: a required column is missing, or a line has other cells than the header.
    """
    rows = read_rows(path)
    _, header = next(rows, (0, []))
    if missing := [name for name in required if name not in header]:
        raise DataError(
            f"expected columns {', '.join(required)} in {path}, found {', '.join(header) or 'none'} "
            f"(no {', '.join(missing)}); mend the first line"
        )
    for number, cells in rows:
        if len(cells) != len(header):
            raise DataError(
                f"expected {len(header)} cells in line {number} of {path}, found {len(cells)}; mend the line"
            )
        yield number, dict(zip(header, cells, strict=True))


def read_pairs_of_words(path: Path) -> Iterator[tuple[str, str]]:
    """(first word, rest) of every line of a text file such as ``12 003.Sooty_Albatross``.

    Raises:
        DataError: it is missing, no text, or has a line of one word.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise DataError(f"expected an index, found no file at {path}; restore it") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"expected a text file at {path}, found {error}; restore it") from None
    for number, line in enumerate(lines, 1):
        first, _, rest = line.strip().partition(" ")
        if first and not rest:
            raise DataError(
                f"expected two or more words in line {number} of {path}, found {line!r}; restore it"
            )
        if first:
            yield first, rest
