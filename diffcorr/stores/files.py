"""Whole files or none: atomic writes, and names that no two processes share."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from diffcorr.errors import StoreError


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
    file, the new one, or absent, and never a part of one.

    Raises:
        StoreError: the file cannot be written (disk full, no permission).
    """
    temporary = path.with_name(f".{path.name}.{unique_name()}.tmp")
    try:
        write(temporary)
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise StoreError(
            f"cannot write {str(path)!r} ({error.strerror or error}): free space or choose another folder"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def unique_name() -> str:
    """A file name stem that sorts by time of writing and is unique across processes and machines."""
    return f"{time.time_ns():020d}-{os.getpid()}-{secrets.token_hex(4)}"
