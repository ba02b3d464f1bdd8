import numpy as np
import pytest
from PIL import Image

from diffcorr.errors import StoreError
from diffcorr.stores import MaskStore

MASK = np.array([[0, 1, 2], [300, 65534, -1]])


def test_masks_come_back_as_they_were(tmp_path):
    store = MaskStore(tmp_path)
    store.add("val/0001:a.b", "diffseg", MASK, seed=3)
    found = MaskStore(tmp_path).get("val/0001:a.b", "diffseg", seed=3)
    assert found.dtype == np.int64
    assert np.array_equal(found, MASK)
    assert store.get("val/0001:a.b", "diffseg") is None
    assert store.get("val/0001:a.b", "kmeans_pixels", seed=3) is None


def test_a_mask_is_an_ordinary_16_bit_image(tmp_path):
    MaskStore(tmp_path).add("a", "diffseg", MASK)
    (path,) = tmp_path.rglob("*.png")
    with Image.open(path) as image:
        assert image.mode == "I;16"
        assert np.asarray(image).tolist() == [[0, 1, 2], [300, 65534, 65535]]


def test_ids_are_listed_whatever_they_hold(tmp_path):
    store = MaskStore(tmp_path)
    ids = ["../x", ".hidden", "a/b", "a%2Fb", "Ärger 1"]
    for image_id in ids:
        store.add(image_id, "diffseg", MASK)
    assert store.image_ids("diffseg") == sorted(ids)
    assert store.image_ids("diffseg", seed=1) == []
    assert all(path.is_relative_to(tmp_path / "diffseg" / "seed0") for path in tmp_path.rglob("*.png"))


def test_a_second_mask_is_refused_or_replaces_where_asked(tmp_path):
    MaskStore(tmp_path).add("a", "diffseg", MASK)
    with pytest.raises(StoreError, match="each mask once"):
        MaskStore(tmp_path).add("a", "diffseg", MASK)
    MaskStore(tmp_path, on_duplicate="replace").add("a", "diffseg", MASK[::-1])
    assert np.array_equal(MaskStore(tmp_path).get("a", "diffseg"), MASK[::-1])


def test_a_mask_of_another_configuration_is_refused(tmp_path):
    store = MaskStore(tmp_path)
    store.add("a", "diffseg", MASK, config_hash="abc")
    assert store.get("a", "diffseg", config_hash="abc") is not None
    assert store.config_hash("a", "diffseg") == "abc"
    assert store.config_hash("b", "diffseg") is None
    with pytest.raises(StoreError, match=r"'def'.*'abc'"):
        store.get("a", "diffseg", config_hash="def")


@pytest.mark.parametrize(
    "bad", [np.zeros((2, 2)), np.zeros((2, 2, 3), int), np.full((2, 2), 65535), np.full((2, 2), -2)]
)
def test_what_is_no_mask_is_refused(tmp_path, bad):
    with pytest.raises(StoreError):
        MaskStore(tmp_path).add("a", "diffseg", bad)
    assert not list(tmp_path.rglob("*.png"))


def test_a_truncated_mask_is_named(tmp_path):
    store = MaskStore(tmp_path)
    store.add("a", "diffseg", np.random.default_rng(0).integers(0, 60000, (40, 40)))
    (path,) = tmp_path.rglob("*.png")
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(StoreError, match="delete that file"):
        store.get("a", "diffseg")


def test_a_damaged_mask_counts_as_missing(tmp_path, caplog):
    store = MaskStore(tmp_path)
    store.add("a", "diffseg", np.random.default_rng(0).integers(0, 60000, (40, 40)), config_hash="x")
    (path,) = tmp_path.rglob("*.png")
    content = bytearray(path.read_bytes())
    for broken in (content[:-500], b"", content[:700] + bytes([content[700] ^ 1]) + content[701:]):
        path.write_bytes(broken)
        assert store.config_hash("a", "diffseg") is None
        assert (path.parent / "damaged" / path.name).read_bytes() == broken
        assert store.image_ids("diffseg") == []
    assert caplog.text.count("set aside") == 3
