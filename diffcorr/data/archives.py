"""Unpacking downloads without trusting them."""

from __future__ import annotations

import os
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

from diffcorr.errors import DataError

JUNK = ("__MACOSX", ".DS_Store")
"""What macOS leaves in archives; skipped."""


def unpack(archive: str | Path, folder: str | Path) -> list[Path]:
    """Unpack a zip or tar file, all of it or nothing.

    Only plain files and folders inside of ``folder`` are written, never over something that is there, and
    no more bytes than the disk has free. Modes, owners and times in the archive are ignored.

    Args:
        archive: zip, tar, or tar with gzip, bzip2 or xz.
        folder: where to; made if missing.

    Returns:
        The files and folders that are new in ``folder``.

    Raises:
        DataError: no such archive, a damaged one, one with an absolute path, ``..``, a link or a device, one
            that repeats a name or is too large, or something of that name is there already.
    """
    archive, folder = Path(archive), Path(folder)
    if not archive.is_file():
        raise DataError(f"expected an archive at {archive}, found no file; check the path")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # a fresh folder on the same disk: what is written can meet no link, and moves by renaming
        with tempfile.TemporaryDirectory(prefix=".unpack-", dir=folder) as temporary:
            free = shutil.disk_usage(folder).free
            _write_all(archive, Path(temporary), free)
            new = sorted(Path(temporary).iterdir())
            if not new:
                raise DataError(f"expected files in {archive}, found none; download it again")
            if taken := [path.name for path in new if os.path.lexists(folder / path.name)]:
                raise DataError(
                    f"expected no {taken[0]} in {folder}, found one; remove it or choose another folder"
                )
            return [path.rename(folder / path.name) for path in new]
    except (
        *(tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, OSError),
        *(RuntimeError, NotImplementedError, ValueError),
    ) as error:  # RuntimeError: a zip with a password
        if isinstance(error, DataError):
            raise
        raise DataError(
            f"cannot unpack {archive} into {folder}: {error}; download it again or mend the folder"
        ) from None


def _write_all(archive: Path, folder: Path, free: int) -> None:
    for name, file in _members(archive):
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name or "\0" in name:
            raise DataError(
                f"expected paths inside of the folder in {archive}, found {name!r}; do not use this file"
            )
        if not path.parts or any(part in JUNK for part in path.parts):
            continue
        target = folder.joinpath(*path.parts)
        if file is None:
            target.mkdir(parents=True, exist_ok=True)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        if target.exists():
            raise DataError(
                f"expected every file of {archive} once, found {name!r} again; do not use this file"
            )
        with file, target.open("xb") as to:
            while chunk := file.read(1 << 20):
                free -= len(chunk)  # counted as it comes: what an archive says of sizes may be wrong
                if free < 0:
                    raise DataError(
                        f"expected {archive} to fit the free space of {folder.parent}, found it larger"
                    )
                to.write(chunk)


def _members(archive: Path) -> Iterator[tuple[str, IO[bytes] | None]]:
    """Name and content of every member in turn, ``None`` for a folder."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            for info in packed.infolist():
                kind = stat.S_IFMT(info.external_attr >> 16)
                if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                    raise DataError(_refused(archive, info.filename))
                yield info.filename, None if info.is_dir() else packed.open(info)
        return
    if not tarfile.is_tarfile(archive):
        raise DataError(f"expected a zip or tar file at {archive}, found neither; download it again")
    with tarfile.open(archive) as stream:
        for member in stream:
            if not (member.isreg() or member.isdir()):
                raise DataError(_refused(archive, member.name))
            yield member.name, stream.extractfile(member)
        # a checksum stands at the very end, which reading the members alone need not reach
        while stream.fileobj is not None and stream.fileobj.read(1 << 20):
            pass


def _refused(archive: Path, name: str) -> str:
    return (
        f"expected only files and folders in {archive}, found a link or device {name!r}; do not use this file"
    )
