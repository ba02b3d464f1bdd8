"""Latents on disk: found again by what was encoded, and equal to encoding anew."""

from pathlib import Path

import pytest
import torch

from diffcorr.correspondence.crops import Crop, LatentBank, encode_crops
from diffcorr.errors import StoreError
from diffcorr.memory import Batches
from diffcorr.stores.latents import GIB, LatentStore
from tests.helpers.tiny_models import IMAGE_SIZE, tiny_backbone

IMAGE = torch.rand(3, IMAGE_SIZE, IMAGE_SIZE, generator=torch.Generator().manual_seed(0))
CROPS = {Crop(0, 0), Crop(3, 1), Crop(2, 4, True)}


def test_a_bank_takes_from_disk_what_another_run_encoded(tmp_path: Path) -> None:
    backbone = tiny_backbone()
    calls: list[int] = []
    backbone.vae.encoder.register_forward_pre_hook(lambda _, args: calls.append(len(args[0])))
    backbone.latent_store = LatentStore(tmp_path, backbone.fingerprint)
    LatentBank(backbone, 28).add("a", IMAGE, CROPS)
    encoded = len(calls)
    backbone.latent_store = LatentStore(tmp_path, backbone.fingerprint)
    LatentBank(backbone, 28).add("a", IMAGE, CROPS)
    assert len(calls) == encoded
    backbone.latent_store = second = LatentStore(tmp_path, backbone.fingerprint)
    bank = LatentBank(backbone, 28)
    more = CROPS | {Crop(1, 1)}
    bank.require({"b": IMAGE}, {"b": more})  # the same picture under another name
    assert (second.hits, second.misses) == (3, 1)
    (expected,) = encode_crops(backbone, IMAGE, [Crop(2, 4, True)], 28, Batches(1))
    torch.testing.assert_close(bank["b", Crop(2, 4, True)], expected)
    third = LatentStore(tmp_path, backbone.fingerprint)
    assert third.get(third.key(IMAGE, 28), more).keys() == more
    LatentBank(backbone, 28, keep=False).add("a", IMAGE, {Crop(4, 4)})
    assert third.get(third.key(IMAGE, 28), {Crop(4, 4)}) == {}


def test_the_key_is_of_all_that_a_latent_depends_on(tmp_path: Path) -> None:
    store, other = LatentStore(tmp_path, "model"), LatentStore(tmp_path, "another")
    changed = IMAGE.clone()
    changed[0, 0, 0] += 1e-6
    keys = [
        store.key(IMAGE, 28),
        other.key(IMAGE, 28),
        store.key(IMAGE, 27),
        store.key(changed, 28),
        store.key(IMAGE.double(), 28),
        store.key(IMAGE.reshape(3, -1, 2), 28),
    ]
    with torch.autocast("cpu", torch.bfloat16):
        keys.append(store.key(IMAGE, 28))
    assert len(set(keys)) == len(keys)
    assert LatentStore(tmp_path, "model").key(IMAGE.clone(), 28) == keys[0]


def test_a_full_store_keeps_what_it_has(tmp_path: Path) -> None:
    latent = torch.rand(4, 8, 8)
    store = LatentStore(tmp_path, "m", 2.5 * latent.nbytes / GIB)
    for number in range(3):
        store.add(f"k{number}", [(Crop(0, 0), latent)])
    kept = [bool(store.get(f"k{number}", [Crop(0, 0)])) for number in range(3)]
    assert kept == [True, True, False] or kept == [True, False, False]  # the header counts too
    assert store.num_bytes == sum(path.stat().st_size for path in tmp_path.iterdir())
    with pytest.raises(StoreError, match="more than 0 GiB, found 0"):
        LatentStore(tmp_path, "m", 0)


def test_a_damaged_file_is_encoded_anew(tmp_path: Path) -> None:
    store, latent = LatentStore(tmp_path, "m"), torch.rand(4, 8, 8)
    store.add("k", [(Crop(0, 0), latent)])
    path = tmp_path / "k.safetensors"
    path.write_bytes(path.read_bytes()[:-9])
    assert store.get("k", [Crop(0, 0)]) == {}
    store.add("k", [(Crop(0, 0), latent.transpose(1, 2))])  # a view is stored as it looks
    torch.testing.assert_close(store.get("k", [Crop(0, 0)])[Crop(0, 0)], latent.transpose(1, 2))
