"""A file that one process appends records to, each whole or known to be broken."""

from __future__ import annotations

import json
import os
import time
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffcorr.errors import StoreError

SYNC_EVERY = 1.0
"""Seconds after which a record goes to the disk itself: a process that is killed loses no record, a machine
that dies those of the last second."""


class Journal:
    """Appends JSON records, one a line behind its checksum.

    The operating system has a record when `append` returns. `read` leaves out what a crash, a full disk or
    a broken disk has damaged and says how many lines that were.

    Args:
        path: of the file; made with the first record.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: int | None = None
        self._synced = 0.0

    def append(self, record: Mapping[str, Any]) -> None:
        """Add a record.

        Raises:
            StoreError: the file cannot be written (disk full, no permission).
        """
        text = json.dumps(record, separators=(",", ":")).encode()
        line = b"%08x %s\n" % (zlib.crc32(text), text)
        try:
            if self._file is None:
                self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            while line:
                line = line[os.write(self._file, line) :]
            if time.monotonic() - self._synced > SYNC_EVERY:
                os.fsync(self._file)
                self._synced = time.monotonic()
        except OSError as error:
            raise StoreError(
                f"cannot write {str(self.path)!r} ({error.strerror or error}): "
                "free space or choose another folder"
            ) from error

    def remove(self) -> None:
        """Delete the file: its records are kept elsewhere now."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
            self.path.unlink(missing_ok=True)

    @staticmethod
    def read(path: Path) -> tuple[list[dict[str, Any]], int]:
        """The whole records of a file, and how many lines are damaged.

        Raises:
            OSError: the file cannot be read.
        """
        records, damaged = [], 0
        for line in path.read_bytes().splitlines():
            checksum, _, text = line.partition(b" ")
            if checksum != b"%08x" % zlib.crc32(text):
                damaged += 1
                continue
            records.append(json.loads(text))
        return records, damaged
