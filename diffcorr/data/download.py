"""Fetching a data set from its host: resumed where a transfer broke, checked, unpacked without trust."""

from __future__ import annotations

import hashlib
import http.client
import json
import shutil
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from urllib.parse import urlsplit

from diffcorr.data.archives import unpack
from diffcorr.errors import DataError

Tell = Callable[[str, int, int | None], None]
"""Hears of progress: name of the file, bytes that are there, bytes of the whole where the host says so."""

TIMEOUT = 60.0
ATTEMPTS = 5
"""How often in a row a transfer may break without a single new byte."""
PAUSE = 2.0
"""Seconds to wait after the first of them, longer after the next."""
FOLDER = ".download"
"""Where files lie until a data set is in place."""


@dataclass(frozen=True)
class Download:
    """A file on a host.

    Attributes:
        url: http or https.
        into: folder below the root where it is unpacked, or put if it is no archive.
        md5: published checksum, 32 hexadecimal digits; None where none is.
        flat: whether the archive's folders are left out.
    """

    url: str
    into: str = "."
    md5: str | None = None
    flat: bool = False

    @property
    def name(self) -> str:
        """Its file name."""
        return Path(urlsplit(self.url).path).name

    @property
    def packed(self) -> bool:
        """Whether it is an archive."""
        return self.name.endswith((".zip", ".tar", ".tgz", ".tar.gz"))


def download(files: Sequence[Download], root: Path, tell: Tell, mirror: str | None = None) -> list[Path]:
    """Fetch all files, then unpack them; what was fetched is kept until all is in place.

    Args:
        files: of one data set.
        root: where to; made if missing.
        tell: hears of progress.
        mirror: address of a folder that has the same files, instead of their own hosts.

    Returns:
        What is new.

    Raises:
        DataError: a host does not give a file, a file is not the published one, or it cannot be unpacked.
            What was fetched so far is used by the next call.
    """
    fetched = []
    for file in files:
        url = f"{mirror.rstrip('/')}/{file.name}" if mirror else file.url
        fetched.append(fetch(url, root / FOLDER / file.name, tell, file.md5))
    new: list[Path] = []
    for file, path in zip(files, fetched, strict=True):
        folder = root / file.into
        folder.mkdir(parents=True, exist_ok=True)
        if not file.packed:
            new += _move([path], folder)
        elif file.flat:
            with tempfile.TemporaryDirectory(dir=root) as temporary:
                unpack(path, temporary)
                new += _move(sorted(p for p in Path(temporary).rglob("*") if p.is_file()), folder)
        else:
            new += unpack(path, folder)
    shutil.rmtree(root / FOLDER)
    return new


def _move(paths: Sequence[Path], folder: Path) -> list[Path]:
    for path in paths:
        if (folder / path.name).exists():
            raise DataError(
                f"expected no {path.name} in {folder}, found one; remove it or choose another folder"
            )
    return [Path(shutil.move(path, folder / path.name)) for path in paths]


def fetch(url: str, target: Path, tell: Tell, md5: str | None = None) -> Path:
    """Fetch one file; a transfer that breaks is resumed, now and by a later call.

    Bytes are kept in ``<target>.part`` beside what the host said of the file, so that a part of another
    version is never continued. The file has its name only when it is whole and its checksum right.

    Args:
        url: http or https.
        target: where to; if it is there already, only its checksum is looked at.
        tell: hears of progress.
        md5: published checksum.

    Raises:
        DataError: the host does not give the file, or it has another checksum.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise DataError(f"expected an address that begins with http:// or https://, found {url!r}")
    part = target.with_name(f"{target.name}.part")
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        broken = 0
        while not (done := _transfer(url, part, tell, md5 is not None)).whole:
            broken = 0 if done.new_bytes else broken + 1
            if broken == ATTEMPTS:
                raise DataError(
                    f"expected all of {url}, found that the transfer breaks ({done.reason}): run the same "
                    "command later, it goes on where it stopped"
                )
            time.sleep(PAUSE * broken)
    there = target if target.exists() else part
    if md5 is not None and (found := _md5(there)) != md5:
        _forget(part)
        there.unlink(missing_ok=True)
        raise DataError(
            f"expected a file with the MD5 {md5} at {url}, found {found}; it is deleted: fetch it again, or "
            "do not use this host"
        )
    if there is part:
        part.rename(target)
        _forget(part)
    return target


@dataclass(frozen=True)
class _Done:
    """How a transfer ended."""

    whole: bool
    new_bytes: int = 0
    reason: str = ""


def _transfer(url: str, part: Path, tell: Tell, checked: bool) -> _Done:
    """One connection: append to the part what is missing, or begin anew where that is not possible.

    Without a version from the host a part may be of another file, which only a checksum would tell.
    """
    version = _remembered(part, url)
    start = part.stat().st_size if part.exists() and (version or (checked and version == "")) else 0
    headers = {"User-Agent": "diffcorr", "Accept-Encoding": "identity"}
    if start:
        headers |= {"Range": f"bytes={start}-"} | ({"If-Range": version} if version else {})
    new = 0
    try:
        # the scheme was looked at by the caller
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT) as reply:
            if reply.headers.get_content_type() == "text/html":
                raise DataError(f"expected a file at {url}, found a web page: fetch it by hand")
            if reply.status == 206 and not _continues(reply.headers.get("Content-Range"), start):
                _forget(part)
                part.unlink(missing_ok=True)
                return _Done(False, reason="the host sent another part than the one asked for")
            if reply.status != 206:
                start = 0  # the whole file: the host knows no parts, or the file is another one now
            length = reply.headers.get("Content-Length")
            total = start + int(length) if length and length.isdecimal() else None
            free = shutil.disk_usage(part.parent).free
            if total is not None and total - start > free:
                raise DataError(
                    f"expected {total - start:,} free bytes in {part.parent}, found {free:,}: free some"
                )
            _remember(part, url, reply.headers)
            with part.open("ab" if start else "wb") as to:
                while chunk := reply.read(1 << 18):
                    to.write(chunk)
                    new += len(chunk)
                    tell(part.name.removesuffix(".part"), start + new, total)
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:
            whole = error.headers.get("Content-Range") == f"bytes */{start}"
            if not whole:  # the part is longer than the file: it is of another one
                _forget(part)
                part.unlink(missing_ok=True)
            return _Done(whole, reason="the file on the host has become shorter")
        if error.code >= 500 or error.code == 429:
            return _Done(False, reason=f"{error.code} {error.reason}")
        raise DataError(
            f"expected a file at {url}, found that the host answers {error.code} {error.reason}: look for "
            "its new address in diffcorr data list, or name a --mirror"
        ) from None
    except (OSError, http.client.HTTPException) as error:
        return _Done(False, new, str(getattr(error, "reason", error)) or type(error).__name__)
    there = part.stat().st_size
    return _Done(total is None or there == total, new, f"it ended after {there:,} of {total or 0:,} bytes")


def _continues(content_range: str | None, start: int) -> bool:
    return (content_range or "").startswith(f"bytes {start}-")


def _note(part: Path) -> Path:
    return part.with_name(f"{part.name}.json")


def _remember(part: Path, url: str, headers: Message) -> None:
    version = headers.get("ETag") or ""
    if not version or version.startswith("W/"):  # a weak one tells of alike contents, not of equal bytes
        version = headers.get("Last-Modified") or ""
    _note(part).write_text(json.dumps({"url": url, "version": version}), encoding="utf-8")


def _remembered(part: Path, url: str) -> str | None:
    """What the host called the version of a part (empty if it did not), or None where that is not known."""
    try:
        note = json.loads(_note(part).read_text(encoding="utf-8"))
        return str(note["version"]) if note["url"] == url else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _forget(part: Path) -> None:
    _note(part).unlink(missing_ok=True)


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
