"""Data sets fetched from a server on this machine: whole, broken off, changed, refused and hostile."""

import hashlib
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from diffcorr.cli import main
from diffcorr.data import download as module
from diffcorr.data.download import Download, download, fetch
from diffcorr.errors import DataError
from tests.helpers import make_datasets

CONTENT = bytes(range(256)) * 4000  # a megabyte


@dataclass
class Host:
    """A server's files, what it does wrong, and what it was asked."""

    address: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    knows_parts: bool = True
    etag: str | None = '"one"'
    kind: str = "application/octet-stream"
    cuts: list[int] = field(default_factory=list)  # bytes that the next replies end after
    codes: list[int] = field(default_factory=list)  # that the next replies are refused with
    asked: list[str | None] = field(default_factory=list)  # the Range of each request


class Handler(BaseHTTPRequestHandler):
    host: Host

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        host, wanted = self.host, self.headers.get("Range")
        host.asked.append(wanted)
        content = host.files.get(self.path.lstrip("/"))
        code = host.codes.pop(0) if host.codes else 404 if content is None else 200
        if code != 200 or content is None:
            return self.send_error(code)
        start = 0
        same = self.headers.get("If-Range") in (None, host.etag)
        if wanted and host.knows_parts and same:
            start, code = int(wanted.removeprefix("bytes=").removesuffix("-")), 206
            if start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                return self.end_headers()
        self.send_response(code)
        self.send_header("Content-Type", host.kind)
        self.send_header("Content-Length", str(len(content) - start))
        if host.etag:
            self.send_header("ETag", host.etag)
        if code == 206:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        end = start + host.cuts.pop(0) if host.cuts else len(content)
        self.wfile.write(content[start:end])


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    monkeypatch.setattr(module, "PAUSE", 0.0)
    found = Host(files={"a.bin": CONTENT})
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {"host": found}))
    found.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield found
    server.shutdown()
    thread.join()
    server.server_close()


def silent(name: str, done: int, total: int | None) -> None:
    assert total is None or done <= total


def test_a_file_arrives_whole_and_leaves_nothing_else(host: Host, tmp_path: Path) -> None:
    heard: list[tuple[str, int, int | None]] = []
    path = fetch(f"{host.address}/a.bin", tmp_path / "new" / "a.bin", lambda *now: heard.append(now))
    assert path.read_bytes() == CONTENT
    assert list((tmp_path / "new").iterdir()) == [path]
    assert heard[-1] == ("a.bin", len(CONTENT), len(CONTENT))
    fetch(f"{host.address}/a.bin", path, silent, hashlib.md5(CONTENT).hexdigest())
    assert len(host.asked) == 1  # it is there: only its checksum was looked at


def test_a_transfer_that_breaks_goes_on_where_it_stopped(host: Host, tmp_path: Path) -> None:
    host.cuts = [300_000, 200_000]
    path = fetch(f"{host.address}/a.bin", tmp_path / "a.bin", silent)
    assert path.read_bytes() == CONTENT
    assert host.asked == [None, "bytes=300000-", "bytes=500000-"]


def test_a_later_call_goes_on_where_an_earlier_one_gave_up(host: Host, tmp_path: Path) -> None:
    host.cuts = [300_000, *[0] * module.ATTEMPTS]
    with pytest.raises(
        DataError, match=r"ended after 300,000 of 1,024,000 bytes.*goes on where it stopped"
    ) as error:
        fetch(f"{host.address}/a.bin", tmp_path / "a.bin", silent)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "a.bin").exists()
    host.asked.clear()
    assert fetch(f"{host.address}/a.bin", tmp_path / "a.bin", silent).read_bytes() == CONTENT
    assert host.asked == ["bytes=300000-"]


def test_a_host_that_knows_no_parts_sends_all_again(host: Host, tmp_path: Path) -> None:
    host.cuts, host.knows_parts = [300_000], False
    assert fetch(f"{host.address}/a.bin", tmp_path / "a.bin", silent).read_bytes() == CONTENT
    assert host.asked == [None, "bytes=300000-"]


@pytest.mark.parametrize("longer", [True, False])
def test_a_part_of_another_version_is_not_continued(host: Host, tmp_path: Path, longer: bool) -> None:
    host.cuts = [300_000, *[0] * module.ATTEMPTS]
    with pytest.raises(DataError):
        fetch(f"{host.address}/a.bin", tmp_path / "a.bin", silent)
    changed = bytes(500_000 if longer else 100_000)
    host.files["a.bin"], host.etag = changed, '"two"'
    assert fetch(f"{host.address}/a.bin", tmp_path / "a.bin", silent).read_bytes() == changed


def test_without_a_version_only_a_checksum_allows_to_continue(host: Host, tmp_path: Path) -> None:
    for md5, second in ((None, None), (hashlib.md5(CONTENT).hexdigest(), "bytes=300000-")):
        host.etag, host.cuts = None, [300_000]
        host.asked.clear()
        path = fetch(f"{host.address}/a.bin", tmp_path / f"{md5}.bin", silent, md5)
        assert path.read_bytes() == CONTENT
        assert host.asked == [None, second]


def test_a_part_that_was_whole_already(host: Host, tmp_path: Path) -> None:
    host.cuts = [300_000, *[0] * module.ATTEMPTS]
    with pytest.raises(DataError):
        fetch(f"{host.address}/a.bin", tmp_path / "a.bin", silent)
    (tmp_path / "a.bin.part").write_bytes(CONTENT)
    assert fetch(f"{host.address}/a.bin", tmp_path / "a.bin", silent).read_bytes() == CONTENT


def test_a_wrong_checksum_leaves_nothing(host: Host, tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=f"MD5 {'0' * 32} at .*found {hashlib.md5(CONTENT).hexdigest()}"
    ) as error:
        fetch(f"{host.address}/a.bin", tmp_path / "a.bin", silent, "0" * 32)
    assert "\n" not in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_what_a_host_refuses(host: Host, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="answers 404 Not Found: look for its new address"):
        fetch(f"{host.address}/none.zip", tmp_path / "none.zip", silent)
    host.codes = [503, 429]  # busy: asked again
    assert fetch(f"{host.address}/a.bin", tmp_path / "a.bin", silent).read_bytes() == CONTENT
    host.kind = "text/html; charset=utf-8"
    with pytest.raises(DataError, match="found a web page: fetch it by hand"):
        fetch(f"{host.address}/a.bin", tmp_path / "b.bin", silent)
    for url in ("ftp://127.0.0.1/a.bin", "file:///etc/passwd"):
        with pytest.raises(DataError, match="begins with http"):
            fetch(url, tmp_path / "c.bin", silent)
    with pytest.raises(DataError, match=r"the transfer breaks .*refused"):
        fetch("http://127.0.0.1:9/a.bin", tmp_path / "d.bin", silent)  # nobody listens on the discard port


def test_a_file_larger_than_the_disk(host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("diffcorr.data.download.shutil.disk_usage", lambda folder: usage)
    with pytest.raises(DataError, match="expected 1,024,000 free bytes"):
        fetch(f"{host.address}/a.bin", tmp_path / "a.bin", silent)


def test_several_files_are_put_where_they_belong(host: Host, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "lists.zip", "w") as archive:
        archive.writestr("lists/trn_pairs.csv", b"1")
        archive.writestr("__MACOSX/lists/._trn_pairs.csv", b"2")
    with tarfile.open(tmp_path / "images.tgz", "w:gz") as archive:
        archive.add(make_datasets.picture(tmp_path / "x.png", (3, 4)), "images/x.png")
    host.files = {name: (tmp_path / name).read_bytes() for name in ("lists.zip", "images.tgz")}
    host.files["pairs.csv"] = b"3"
    files = [
        Download(f"{host.address}/images.tgz?download=1", "set"),
        Download(f"{host.address}/lists.zip", "set", flat=True),
        Download(f"{host.address}/pairs.csv", "set"),
    ]
    host.files |= {"images.tgz?download=1": host.files["images.tgz"]}
    new = download(files, tmp_path / "root", silent)
    there = sorted(
        str(p.relative_to(tmp_path / "root")) for p in (tmp_path / "root").rglob("*") if p.is_file()
    )
    assert there == ["set/images/x.png", "set/pairs.csv", "set/trn_pairs.csv"]
    assert sorted(p.name for p in new) == ["images", "pairs.csv", "trn_pairs.csv"]
    # what is there is not written over, and what was fetched is kept for another folder
    host.asked.clear()
    with pytest.raises(DataError, match="expected no images in"):
        download(files, tmp_path / "root", silent)
    assert len(host.asked) == 3
    assert (tmp_path / "root" / module.FOLDER / "lists.zip").exists()


def packed(folder: Path) -> bytes:
    path = folder.parent / "packed.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder, folder.name)
    return path.read_bytes()


def test_a_data_set_from_the_command_line(
    host: Host, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    host.files = {"SPair-71k.tar.gz": packed(make_datasets.spair(tmp_path / "made"))}
    host.cuts = [500]
    command = ["data", "download", "spair", str(tmp_path / "root"), "--mirror", f"{host.address}/"]
    assert main(command) == 2  # nobody to ask: nothing is fetched
    printed = capsys.readouterr()
    assert "answer y, or add --yes" in printed.err
    assert printed.err.count("\n") == 1
    assert host.asked == []
    assert main([*command, "--yes"]) == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert [line.split(":")[0] for line in lines[:6]] == [
        *("title", "source", "licence", "size", "citation", "file"),
    ]
    assert lines[5] == f"file: {host.address}/SPair-71k.tar.gz"
    assert "a sound subset" in lines[6]
    assert "SPair-71k.tar.gz: 0.0 of 0.0 MB (100%)" in printed.err
    assert [p.name for p in (tmp_path / "root").iterdir()] == ["SPair-71k"]
    assert main([*command, "--yes"]) == 2  # it is there
    assert "found one: look at it with diffcorr data check spair" in capsys.readouterr().err


def test_another_cub_than_the_published_one(
    host: Host, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    host.files = {"CUB_200_2011.tgz": packed(make_datasets.cub(tmp_path / "made"))}
    assert main(["data", "download", "cub", str(tmp_path / "root"), "--yes", "--mirror", host.address]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert "expected a file with the MD5 97eceeb196236b17998738112f37df78" in error
    assert not list((tmp_path / "root").rglob("*.t*"))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["own_pairs", "x"], "expected files that can be fetched for own_pairs, found none"),
        (["spare", "x"], "unknown data set on disk 'spare'; known: "),
        (["spair", "x", "--yes", "--mirror", "ftp://h"], "begins with http"),
    ],
)
def test_mistakes_are_one_line(
    words: list[str],
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["data", "download", *words]) == 2
    error = capsys.readouterr().err
    assert told in error
    assert error.count("\n") == 1
