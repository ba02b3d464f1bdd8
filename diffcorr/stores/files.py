"""Whole files or none: atomic writes, names that no two processes share, and damaged files set aside."""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from diffcorr.errors import StoreError

log = logging.getLogger(__name__)

DAMAGED = "damaged"
"""Name of the folder, inside that of a store, for files that cannot be read."""

DRAFT_LIFE = 3600.0
"""Seconds after which an unfinished file is taken for one that a killed process left."""


def writable_folder(folder: str | os.PathLike[str]) -> Path:
    """Create ``folder`` where missing and prove that files can be written in it.

    Returns:
        The folder as a ``Path``.

    Raises:
        StoreError: the folder cannot be created or written.
    """
    path = Path(folder)
    probe = path / f".probe-{unique_name()}"
    try:
        path.mkdir(parents=True, exist_ok=True)
        probe.touch(exist_ok=False)
        probe.unlink()
    except OSError as error:
        raise StoreError(
            f"expected a folder that can be written, found {str(path)!r} "
            f"({error.strerror or error}): choose another folder or mend its permissions"
        ) from error
    return path


def write_atomic(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then rename it into place.

    The data reach the disk before the name does: after a crash at any moment ``path`` is the old
    file, the new one, or absent, and never a part of one; when this returns, it is the new one.

    Raises:
        StoreError: the file cannot be written (disk full, no permission).
    """
    temporary = path.with_name(f".{path.name}.{unique_name()}.tmp")
    try:
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        raise StoreError(
            f"cannot write {str(path)!r} ({error.strerror or error}): free space or choose another folder"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def set_aside(path: Path, why: object) -> None:
    """Move a damaged file into the folder ``damaged`` beside it, where nothing reads it again.

    What it held counts as missing from then on. Of several processes that find it so one moves it.

    Raises:
        StoreError: it cannot be moved.
    """
    to = path.parent / DAMAGED / path.name
    try:
        to.parent.mkdir(exist_ok=True)
        os.replace(path, to)
    except FileNotFoundError:
        return
    except OSError as error:
        raise StoreError(
            f"expected to move the damaged {str(path)!r} to {str(to)!r}, found {error.strerror or error}: "
            "delete that file"
        ) from error
    log.warning("%s is damaged (%s): set aside in %s, what it held is made again", path.name, why, to.parent)


def remove_drafts(folder: Path) -> None:
    """Delete what writers that were killed have left unfinished in a folder, long enough ago to be dead."""
    for path in folder.glob(".*.tmp"):
        with suppress(OSError):
            if time.time() - path.stat().st_mtime > DRAFT_LIFE:
                path.unlink()


def _sync_folder(folder: Path) -> None:
    """Take a new name to the disk; file systems that cannot do it do it by themselves."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def unique_name() -> str:
    """A file name stem that sorts by time of writing and is unique across processes and machines."""
    return f"{time.time_ns():020d}-{os.getpid()}-{secrets.token_hex(4)}"
