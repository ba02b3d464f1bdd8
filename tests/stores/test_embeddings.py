"""The store against the safetensors library itself, crashes and other processes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from diffcorr.errors import StoreError
from diffcorr.stores import EmbeddingStore

BACKBONE, FIT = "backbone-a", "fit-a"


def embedding(query: int, round: int) -> torch.Tensor:
    return torch.randn(5, 7, generator=torch.Generator().manual_seed(100 * query + round))


def filled(folder: Path, queries: range = range(3), rounds: int = 2) -> None:
    with EmbeddingStore(folder, BACKBONE, FIT) as store:
        for query in queries:
            for round in range(rounds):
                store.add(f"q/{query}", round, embedding(query, round), [1.0 / (1 + round)] * (3 + query))


def test_round_trip_is_exact_in_fp32(tmp_path):
    filled(tmp_path)
    store = EmbeddingStore(tmp_path, BACKBONE, FIT)
    assert len(store) == 6
    for query in range(3):
        found = store.get(f"q/{query}")
        assert torch.equal(found, torch.stack([embedding(query, 0), embedding(query, 1)]))
        assert torch.equal(store.losses(f"q/{query}", 1), torch.full((3 + query,), 0.5))


def test_rounds_come_back_in_order_and_from_several_shards(tmp_path):
    store = EmbeddingStore(tmp_path, BACKBONE, FIT)
    for round in (2, 0, 1):
        store.add("q", round, embedding(0, round), [])
        if round == 0:
            store.flush()
    assert store.rounds("q") == [0, 1, 2]
    expected = torch.stack([embedding(0, round) for round in range(3)])
    assert torch.equal(store.get("q"), expected)  # two rounds on disk, one in the buffer
    store.flush()
    assert torch.equal(EmbeddingStore(tmp_path, BACKBONE, FIT).get("q", rounds=2), expected[:2])
    assert store.losses("q", 1).shape == (0,)


def test_a_shard_is_an_ordinary_safetensors_file(tmp_path):
    filled(tmp_path, range(1))
    (shard,) = tmp_path.glob("*.safetensors")
    tensors = load_file(shard)
    assert tensors["embeddings"].dtype == torch.float32
    assert torch.equal(tensors["embeddings"][1], embedding(0, 1))


def test_missing_and_hit_counts(tmp_path):
    filled(tmp_path, range(2), rounds=2)
    store = EmbeddingStore(tmp_path, BACKBONE, FIT)
    assert store.missing(["q/1", "q/9"], rounds=3) == [("q/1", 2), ("q/9", 0), ("q/9", 1), ("q/9", 2)]
    assert store.get("q/1", rounds=3) is None
    assert store.get("q/9") is None
    assert store.get("q/1", rounds=2) is not None
    assert (store.hits, store.misses) == (1, 2)


def test_the_first_embedding_of_an_item_stays(tmp_path):
    filled(tmp_path, range(1), rounds=1)
    with EmbeddingStore(tmp_path, BACKBONE, FIT) as store:
        store.add("q/0", 0, torch.zeros(5, 7), [])
    assert torch.equal(EmbeddingStore(tmp_path, BACKBONE, FIT).get("q/0"), embedding(0, 0)[None])


def test_what_is_kept_does_not_follow_the_callers_tensor(tmp_path):
    store = EmbeddingStore(tmp_path, BACKBONE, FIT)
    parameter, losses = torch.ones(2, 3, requires_grad=True), torch.ones(4)
    store.add("q", 0, parameter, losses)
    with torch.no_grad():
        parameter.zero_()
    losses.zero_()
    assert torch.equal(store.get("q"), torch.ones(1, 2, 3))
    assert torch.equal(store.losses("q", 0), torch.ones(4))


def test_a_full_buffer_is_written_and_an_exception_loses_nothing(tmp_path):
    store = EmbeddingStore(tmp_path, BACKBONE, FIT, items_per_shard=2)
    for round in range(3):
        store.add("q", round, embedding(0, round), [])
    assert EmbeddingStore(tmp_path, BACKBONE, FIT).rounds("q") == [0, 1]
    with pytest.raises(KeyboardInterrupt), store:
        raise KeyboardInterrupt
    assert EmbeddingStore(tmp_path, BACKBONE, FIT).rounds("q") == [0, 1, 2]


@pytest.mark.parametrize(
    ("backbone", "fit", "told"),
    [
        ("backbone-b", FIT, ["backbone", "'backbone-a'", "'backbone-b'"]),
        (BACKBONE, "fit-b", ["'fit-a'", "'fit-b'"]),
    ],
)
def test_a_store_of_another_backbone_or_fit_is_refused(tmp_path, backbone, fit, told):
    filled(tmp_path)
    with pytest.raises(StoreError) as error:
        EmbeddingStore(tmp_path, backbone, fit)
    message = str(error.value)
    assert "\n" not in message
    assert all(part in message for part in [*told, "choose another folder"])


def test_a_folder_that_cannot_be_written_is_refused_before_work(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="choose another folder") as error:
        EmbeddingStore(tmp_path / "file" / "store", BACKBONE, FIT)
    assert "\n" not in str(error.value)


def test_a_write_that_never_finished_is_no_shard(tmp_path):
    filled(tmp_path)
    (shard,) = tmp_path.glob("*.safetensors")
    partial = tmp_path / f".{shard.name}.x.tmp"
    partial.write_bytes(shard.read_bytes()[:100])
    assert len(EmbeddingStore(tmp_path, BACKBONE, FIT)) == 6


def spoil(path, place):
    """Flip one bit."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", ["truncated", "empty", "header", "embedding", "curve"])
def test_damaged_shards_are_set_aside_and_their_items_are_missing(tmp_path, caplog, damage):
    filled(tmp_path, range(2), rounds=1)
    filled(tmp_path, range(2, 4), rounds=1)
    _, second = sorted(tmp_path.glob("*.safetensors"))
    reader = EmbeddingStore(tmp_path, BACKBONE, FIT)  # has seen both, read none
    content = second.read_bytes()
    if damage in ("truncated", "empty"):
        second.write_bytes(content[:-10] if damage == "truncated" else b"")
    else:
        with safe_open(second, "pt") as shard:
            parts = [shard.get_tensor(name).numpy().tobytes() for name in ("embeddings", "losses")]
        spoil(
            second,
            {"header": 9, "embedding": content.index(parts[0]), "curve": content.index(parts[1])}[damage],
        )
    queries = [f"q/{query}" for query in range(4)]
    for store in (reader, EmbeddingStore(tmp_path, BACKBONE, FIT)):
        assert store.missing(queries, rounds=1) == [("q/2", 0), ("q/3", 0)]
        assert store.get("q/2") is None
        assert store.get("q/1") is not None
    assert (tmp_path / "damaged" / second.name).exists()
    assert not second.exists()
    assert caplog.text.count("set aside") == 1
    filled(tmp_path, range(2, 4), rounds=1)
    assert reader.missing(queries, rounds=1) == []


@pytest.mark.parametrize("bad", [torch.full((2, 3), float("nan")), torch.zeros(3), torch.zeros(1, 2, 3)])
def test_what_is_no_finite_matrix_is_refused(tmp_path, bad):
    with pytest.raises(StoreError):
        EmbeddingStore(tmp_path, BACKBONE, FIT).add("q", 0, bad, [])


WRITER = """
import sys, torch
from diffcorr.stores import EmbeddingStore
folder, worker = sys.argv[1], int(sys.argv[2])
with EmbeddingStore(folder, "backbone-a", "fit-a", items_per_shard=3) as store:
    for query in range(20):
        store.add(f"w{worker}/{query}", 0, torch.full((2, 3), float(100 * worker + query)), [0.0])
"""


def test_two_processes_append_to_one_folder(tmp_path):
    before = EmbeddingStore(tmp_path, BACKBONE, FIT)
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), str(worker)]) for worker in (0, 1)
    ]
    assert [writer.wait(timeout=120) for writer in writers] == [0, 0]
    assert len(EmbeddingStore(tmp_path, BACKBONE, FIT)) == 40
    assert before.missing([f"w{worker}/{query}" for worker in (0, 1) for query in range(20)], rounds=1) == []
    assert torch.equal(before.get("w1/7"), torch.full((1, 2, 3), 107.0))
    assert not list(tmp_path.glob(".*"))


def test_the_identity_is_readable_json(tmp_path):
    EmbeddingStore(tmp_path, BACKBONE, FIT)
    assert json.loads((tmp_path / "store.json").read_text()) == {"backbone": BACKBONE, "fit": FIT}
