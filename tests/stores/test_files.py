import os
import time
from pathlib import Path

import pytest

from diffcorr.errors import StoreError
from diffcorr.stores.files import (
    DRAFT_LIFE,
    remove_drafts,
    set_aside,
    unique_name,
    writable_folder,
    write_atomic,
)


def test_a_write_that_fails_half_way_leaves_the_old_content(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def half(to: Path) -> None:
        to.write_text("ne")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        write_atomic(path, half)
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_a_write_into_a_folder_that_is_gone_is_a_store_error(tmp_path):
    with pytest.raises(StoreError):
        write_atomic(tmp_path / "gone" / "file", lambda to: to.write_text("new"))


def test_a_probed_folder_is_left_empty(tmp_path):
    assert list(writable_folder(tmp_path / "a" / "b").iterdir()) == []


def test_names_sort_by_time_and_never_repeat():
    names = [unique_name() for _ in range(200)]
    assert len(set(names)) == 200
    assert [name[:20] for name in names] == sorted(name[:20] for name in names)


def test_a_damaged_file_is_moved_by_the_first_who_finds_it(tmp_path, caplog):
    path = tmp_path / "shard"
    path.write_text("broken")
    set_aside(path, "wrong checksum")
    set_aside(path, "wrong checksum")
    assert (tmp_path / "damaged" / "shard").read_text() == "broken"
    assert len(caplog.records) == 1


def test_drafts_of_killed_writers_go_when_they_are_old(tmp_path):
    old, new, other = (tmp_path / name for name in (".a.1.tmp", ".b.2.tmp", "c.tmp"))
    for path in (old, new, other):
        path.touch()
    for path in (old, other):
        os.utime(path, (0, time.time() - 2 * DRAFT_LIFE))
    remove_drafts(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {".b.2.tmp", "c.tmp"}
