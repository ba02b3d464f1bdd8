"""Stored predictions read back by parquet itself, and duplicates that never pass in silence."""

import dataclasses
import os
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest

from diffcorr.errors import StoreError
from diffcorr.stores import PredictionStore, configurations, read_predictions
from diffcorr.stores.predictions import SCHEMA
from diffcorr.types import PointPrediction


def prediction(pair: int, keypoint: str = "eye", x: float = 1.5) -> PointPrediction:
    layers = {"up.1": (x + 1, 2.0), "up.2": (x + 2, 3.0)}
    return PointPrediction(f"pair/{pair}", keypoint, f"set/image{pair}/{keypoint}", x, 0.1, 0.25, layers)


def test_predictions_come_back_as_they_were(tmp_path):
    added = [prediction(0), prediction(0, "tail"), prediction(1, x=1 / 3)]
    with PredictionStore(tmp_path) as store:
        store.add("dift", 1, added, "abc")
    assert PredictionStore(tmp_path).predictions("dift", 1) == added
    assert PredictionStore(tmp_path).predictions("dift", 2) == []
    assert PredictionStore(tmp_path).pair_ids("dift", 1, "abc") == {"pair/0", "pair/1"}
    assert PredictionStore(tmp_path).pair_ids("dift", 1, "other") == set()


def test_a_shard_is_an_ordinary_parquet_table(tmp_path):
    with PredictionStore(tmp_path) as store:
        store.add("dift", 1, [prediction(0)], "abc")
    (shard,) = tmp_path.glob("*.parquet")
    assert pq.ParquetFile(shard).read().to_pylist() == [
        {
            "method": "dift",
            "seed": 1,
            "pair_id": "pair/0",
            "keypoint": "eye",
            "query_id": "set/image0/eye",
            "x": 1.5,
            "y": 0.1,
            "confidence": 0.25,
            "layer_points": [{"layer": "up.1", "x": 2.5, "y": 2.0}, {"layer": "up.2", "x": 3.5, "y": 3.0}],
            "config_hash": "abc",
            "round_points": [],
        }
    ]


def test_points_of_rounds_come_back_by_number(tmp_path):
    added = dataclasses.replace(prediction(0), round_points={0: (1.5, 2.0), 4: (1 / 3, 3.0)})
    with PredictionStore(tmp_path) as store:
        store.add("dift", 1, [added, prediction(1)], "abc")
    assert PredictionStore(tmp_path).predictions("dift", 1) == [added, prediction(1)]
    assert prediction(1).round_points == {}


def test_a_shard_from_before_there_were_points_of_rounds_is_read(tmp_path):
    with PredictionStore(tmp_path) as store:
        store.add("dift", 1, [prediction(0)], "abc")
    (shard,) = tmp_path.glob("*.parquet")
    pq.write_table(pq.ParquetFile(shard).read().drop_columns(["round_points"]), shard)
    with PredictionStore(tmp_path) as store:
        store.add("dift", 1, [prediction(1)], "abc")
    assert PredictionStore(tmp_path).predictions("dift", 1) == [prediction(0), prediction(1)]
    assert PredictionStore(tmp_path).read().schema == SCHEMA


def test_a_shard_without_a_column_is_damaged_not_empty(tmp_path):
    with PredictionStore(tmp_path) as store:
        store.add("dift", 1, [prediction(0)], "abc")
    (shard,) = tmp_path.glob("*.parquet")
    pq.write_table(pq.ParquetFile(shard).read().drop_columns(["x"]), shard)
    with pytest.raises(StoreError, match="damaged"):
        read_predictions(tmp_path)


def test_predictions_are_read_without_writing(tmp_path):
    for x, config_hash in ((1.0, "abc"), (2.0, "def")):
        with PredictionStore(tmp_path) as store:
            store.add("dift", 1, [prediction(0, x=x)], config_hash)
    before = sorted(tmp_path.iterdir())
    table = read_predictions(tmp_path, ["pair_id", "x"])
    assert table.to_pydict() == {"pair_id": ["pair/0"] * 2, "x": [1.0, 2.0]}
    assert configurations(tmp_path) == {("dift", 1): ["abc", "def"]}
    assert sorted(tmp_path.iterdir()) == before
    with pytest.raises(StoreError, match="found none: name the predictions folder"):
        read_predictions(tmp_path / "nowhere")


def test_methods_and_seeds_are_kept_apart(tmp_path):
    store = PredictionStore(tmp_path, rows_per_shard=2)
    for method in ("chance", "dift"):
        for seed in (0, 1):
            store.add(method, seed, [prediction(0, x=float(seed)), prediction(1, x=float(seed))], "abc")
    assert len(store) == store.read().num_rows == 8
    assert store.read("dift").num_rows == 4
    assert store.read("dift", 1)["x"].to_pylist() == [1.0, 1.0]


@pytest.mark.parametrize("reopened", [False, True])
def test_a_second_prediction_of_a_point_is_refused_as_a_whole(tmp_path, reopened):
    store = PredictionStore(tmp_path)
    store.add("dift", 1, [prediction(0)], "abc")
    if reopened:
        store.flush()
        store = PredictionStore(tmp_path)
    with pytest.raises(StoreError, match=r"'pair/0'.*choose another folder") as error:
        store.add("dift", 1, [prediction(1), prediction(0)], "abc")
    assert "\n" not in str(error.value)
    assert store.read().num_rows == 1


def test_configurations_are_kept_apart(tmp_path):
    for config_hash, x in (("abc", 1.0), ("def", 2.0)):
        with PredictionStore(tmp_path) as store:
            store.add("dift", 1, [prediction(0, x=x), prediction(7, x=0.0)], config_hash)
    store = PredictionStore(tmp_path)
    assert [found.x for found in store.predictions("dift", 1, "abc")] == [1.0, 0.0]
    assert [found.x for found in store.predictions("dift", 1, "def")] == [2.0, 0.0]
    with pytest.raises(StoreError, match="found abc, def: name one as config_hash"):
        store.predictions("dift", 1)


def test_a_configuration_that_is_used_again_is_the_newest(tmp_path):
    order = ["abc", "def", "ghi"]
    for config_hash in order:
        with PredictionStore(tmp_path, rows_per_shard=1) as store:
            store.add("dift", 1, [prediction(0), prediction(1)], config_hash)
            store.add("dift", 2, [prediction(0)], config_hash)
    files = len(list(tmp_path.iterdir()))
    store.renew("dift", 1, "ghi")
    assert len(list(tmp_path.iterdir())) == files  # it is: nothing to write
    store.renew("dift", 1, "abc")
    assert configurations(tmp_path) == {("dift", 1): ["def", "ghi", "abc"], ("dift", 2): order}
    with PredictionStore(tmp_path) as store:
        store.add("dift", 1, [prediction(2)], "def")
    assert configurations(tmp_path)["dift", 1] == ["ghi", "abc", "def"]
    assert len(PredictionStore(tmp_path)) == 10


def test_several_writers_of_the_same_row(tmp_path):
    """Two runs at once in one folder: what they agree on is one row, what they do not is refused."""
    first, second = PredictionStore(tmp_path), PredictionStore(tmp_path)
    for store, x in ((first, 1.0), (second, 1.0)):
        store.add("dift", 1, [prediction(0, x=x)], "abc")
        store.flush()
    assert len(read_predictions(tmp_path)) == 2
    assert [found.x for found in first.predictions("dift", 1)] == [1.0]
    third, fourth = PredictionStore(tmp_path), PredictionStore(tmp_path)
    for store, x in ((third, 1.0), (fourth, 1.0 + 1e-12)):
        store.add("dift", 1, [prediction(1, x=x)], "abc")
        store.flush()
    with pytest.raises(StoreError, match="second one of method 'dift', seed 1, pair 'pair/1'"):
        first.predictions("dift", 1)


@pytest.mark.parametrize("x", [float("nan"), float("inf")])
def test_a_point_that_is_nowhere_is_refused(tmp_path, x):
    with pytest.raises(StoreError, match="finite"):
        PredictionStore(tmp_path).add("dift", 1, [prediction(0, x=x)], "abc")


@pytest.mark.parametrize("damage", ["truncated", "empty", "bit"])
def test_a_damaged_shard_is_set_aside_and_its_rows_are_missing(tmp_path, caplog, damage):
    for pair in range(2):
        with PredictionStore(tmp_path) as store:
            store.add("dift", 1, [prediction(pair)], "abc")
    first, _ = sorted(tmp_path.glob("*.parquet"))
    content = bytearray(first.read_bytes())
    (tmp_path / f".{first.name}.x.tmp").write_bytes(content[:50])  # an interrupted write: no shard
    assert len(PredictionStore(tmp_path)) == 2
    place = content.index(np.float64(prediction(0).x).tobytes())
    content[place] ^= 1  # one bit of an x, which only a checksum can tell
    first.write_bytes({"truncated": content[:-20], "empty": b"", "bit": content}[damage])
    with pytest.raises(StoreError, match="delete that file") as error:  # a reader alone moves nothing
        read_predictions(tmp_path)
    assert "\n" not in str(error.value)
    store = PredictionStore(tmp_path)
    assert store.pair_ids("dift", 1, "abc") == {"pair/1"}
    assert (tmp_path / "damaged" / first.name).exists()
    (line,) = [record.getMessage() for record in caplog.records]
    assert first.name in line
    assert "\n" not in line
    store.add("dift", 1, [prediction(0)], "abc")
    assert store.pair_ids("dift", 1, "abc") == {"pair/0", "pair/1"}


def test_what_was_added_is_there_without_a_flush(tmp_path):
    """A process that is killed runs no code: its store is never closed."""
    PredictionStore(tmp_path).add("dift", 1, [prediction(0, x=0.1 + 0.2), prediction(1)], "abc")
    assert not list(tmp_path.glob("*.parquet"))
    table = read_predictions(tmp_path)
    assert table.schema == SCHEMA
    assert table["x"].to_pylist()[0] == 0.1 + 0.2
    assert configurations(tmp_path) == {("dift", 1): ["abc"]}
    again = PredictionStore(tmp_path)
    assert again.predictions("dift", 1)[1] == prediction(1)
    with pytest.raises(StoreError, match="expected each prediction once"):
        again.add("dift", 1, [prediction(1)], "abc")


def test_a_journal_gives_way_to_a_shard(tmp_path):
    store = PredictionStore(tmp_path)
    store.add("dift", 1, [prediction(0)], "abc")
    (journal,) = tmp_path.glob("*.jsonl")
    line = journal.read_bytes()
    store.flush()
    assert [path.name for path in tmp_path.iterdir()] == [journal.with_suffix(".parquet").name]
    journal.write_bytes(line)  # killed between the two: the row is there twice and read once
    assert len(PredictionStore(tmp_path).read()) == 1


@pytest.mark.parametrize("tail", [-1, -5, -60, 10])
def test_the_broken_end_of_a_journal_is_set_aside(tmp_path, caplog, tail):
    store = PredictionStore(tmp_path)
    for pair in range(3):
        store.add("dift", 1, [prediction(pair)], "abc")
    (journal,) = tmp_path.glob("*.jsonl")
    content = journal.read_bytes()
    last = content.rindex(b"\n", 0, -1) + 1
    journal.write_bytes(content[:tail] if tail < 0 else content[:last] + bytes(tail))
    whole = {"pair/0", "pair/1"} | ({"pair/2"} if tail == -1 else set())  # the end of a line is no part of it
    assert set(read_predictions(tmp_path)["pair_id"].to_pylist()) == whole
    again = PredictionStore(tmp_path)
    assert again.pair_ids("dift", 1, "abc") == whole
    assert ("set aside" in caplog.text) == (tail != -1)
    assert (tmp_path / "damaged" / journal.name).exists() == (tail != -1)


def test_a_full_disk_is_one_line(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StoreError, match="No space left on device") as error:
        PredictionStore(tmp_path).add("dift", 1, [prediction(0)], "abc")
    assert "\n" not in str(error.value)


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="choose another folder"):
        PredictionStore(tmp_path / "file" / "store")


WRITER = """
import sys
from diffcorr.stores import PredictionStore
from diffcorr.types import PointPrediction
folder, worker = sys.argv[1], int(sys.argv[2])
with PredictionStore(folder, rows_per_shard=3) as store:
    for pair in range(20):
        store.add(f"method{worker}", 0, [PointPrediction(f"{pair}", "eye", "q", pair, worker, 1.0)], "abc")
"""


def test_two_processes_append_to_one_folder(tmp_path):
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), str(worker)]) for worker in (0, 1)
    ]
    assert [writer.wait(timeout=120) for writer in writers] == [0, 0]
    store = PredictionStore(tmp_path)
    for worker in (0, 1):
        found = store.predictions(f"method{worker}", 0)
        assert [(p.x, p.y) for p in found] == [(float(pair), float(worker)) for pair in range(20)]
