"""Unpacking: honest archives come out whole, hostile ones write nothing."""

import io
import tarfile
import zipfile
from pathlib import Path

import pytest

from diffcorr.data.archives import unpack
from diffcorr.errors import DataError

CONTENT = {"set/a.txt": b"a", "set/deep/b:c.json": b"bc", "list.csv": b"1,2"}


def tar_of(path: Path, members: list[tarfile.TarInfo | tuple[str, bytes]], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                tar.addfile(info, io.BytesIO(member[1]))
    return path


def zip_of(path: Path, members: dict[str, bytes], attributes: int = 0) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = attributes << 16
            archive.writestr(info, content)
    return path


def special(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_tar(tmp_path: Path, mode: str) -> None:
    archive = tar_of(tmp_path / "x", [special("set", tarfile.DIRTYPE), *CONTENT.items()], mode)
    new = unpack(archive, tmp_path / "out")
    assert [p.name for p in new] == ["list.csv", "set"]
    assert tree(tmp_path / "out") == CONTENT


def test_zip_without_what_macos_leaves(tmp_path: Path) -> None:
    archive = zip_of(
        tmp_path / "x.zip", {**CONTENT, "__MACOSX/set/._a.txt": b"", "set/.DS_Store": b"", "set/d/": b""}
    )
    unpack(archive, tmp_path / "out")
    assert tree(tmp_path / "out") == CONTENT
    assert (tmp_path / "out/set/d").is_dir()


HOSTILE = {
    "parent": [("../evil", b"x")],
    "deep parent": [("set/../../evil", b"x")],
    "absolute": [("/tmp/diffcorr-evil", b"x")],
    "backslash": [("..\\evil", b"x")],
    "symlink": [special("set", tarfile.SYMTYPE, "/"), ("set/evil", b"x")],
    "symlink inside": [("set/a", b"x"), special("set/b", tarfile.SYMTYPE, "a")],
    "hardlink": [special("evil", tarfile.LNKTYPE, "/etc/passwd")],
    "character device": [special("evil", tarfile.CHRTYPE)],
    "block device": [special("evil", tarfile.BLKTYPE)],
    "fifo": [special("evil", tarfile.FIFOTYPE)],
    "twice": [("set/a", b"x"), ("set/a", b"y")],
    "nothing": [],
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_tar_writes_nothing(tmp_path: Path, kind: str) -> None:
    archive = tar_of(tmp_path / "x.tgz", [("first.txt", b"1"), *HOSTILE[kind]] if HOSTILE[kind] else [])
    before = tree(tmp_path)
    with pytest.raises(DataError) as caught:
        unpack(archive, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert tree(tmp_path) == before
    assert list((tmp_path / "out").iterdir()) == []
    assert not Path("/tmp/diffcorr-evil").exists()


@pytest.mark.parametrize(
    ("members", "attributes"),
    [
        ({"../evil": b"x"}, 0),
        ({"/evil": b"x"}, 0),
        ({"link": b"/etc/passwd"}, 0o120777),
        ({"dev": b""}, 0o020666),
    ],
)
def test_a_hostile_zip_writes_nothing(tmp_path: Path, members: dict, attributes: int) -> None:
    archive = zip_of(tmp_path / "x.zip", members, attributes)
    before = tree(tmp_path)
    with pytest.raises(DataError):
        unpack(archive, tmp_path / "out")
    assert tree(tmp_path) == before


@pytest.mark.parametrize("suffix", ["tgz", "zip"])
def test_a_damaged_archive_writes_nothing(tmp_path: Path, suffix: str) -> None:
    content = {"a.bin": bytes(range(256)) * 500, **CONTENT}
    path = tmp_path / f"x.{suffix}"
    whole = (tar_of(path, list(content.items())) if suffix == "tgz" else zip_of(path, content)).read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 4] ^= 255
    for broken in (whole[: len(whole) // 2], bytes(flipped), b"no archive"):
        path.write_bytes(broken)
        with pytest.raises(DataError) as caught:
            unpack(path, tmp_path / "out")
        assert "\n" not in str(caught.value)
        assert list((tmp_path / "out").iterdir()) == []
    with pytest.raises(DataError, match="found no file"):
        unpack(tmp_path / "none.zip", tmp_path / "out")


def test_nothing_is_written_over_and_no_link_is_followed(tmp_path: Path) -> None:
    archive = zip_of(tmp_path / "x.zip", CONTENT)
    unpack(archive, tmp_path / "out")
    (tmp_path / "out/list.csv").write_bytes(b"mine")
    with pytest.raises(DataError, match=r"expected no list.csv"):
        unpack(archive, tmp_path / "out")
    assert (tmp_path / "out/list.csv").read_bytes() == b"mine"
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked/set").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="expected no set"):
        unpack(archive, tmp_path / "linked")
    assert list((tmp_path / "elsewhere").iterdir()) == []
    (tmp_path / "dangling").mkdir()
    (tmp_path / "dangling/set").symlink_to(tmp_path / "void")
    with pytest.raises(DataError, match="expected no set"):
        unpack(archive, tmp_path / "dangling")


def test_an_archive_larger_than_the_disk_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = zip_of(tmp_path / "x.zip", {"big": bytes(5 << 20)})
    usage = type("Usage", (), {"free": 2 << 20})
    monkeypatch.setattr("diffcorr.data.archives.shutil.disk_usage", lambda folder: usage)
    with pytest.raises(DataError, match="free space"):
        unpack(archive, tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []
