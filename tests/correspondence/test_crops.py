import pytest
import torch

from diffcorr.correspondence.crops import (
    BANK_BATCH,
    Crop,
    LatentBank,
    bank_positions,
    crop_bounds,
    crop_side,
    snap,
)
from diffcorr.errors import DiffcorrError
from tests.helpers.tiny_models import IMAGE_SIZE, tiny_backbone


def test_side_is_the_authors() -> None:
    assert crop_side(512, 0.9316549294381423) == 477
    assert crop_side(64, 1.0) == 64


@pytest.mark.parametrize("crop", [13, 20, 32])
def test_bounds_are_all_that_keep_the_margin(crop: int) -> None:
    """Against a search over all crops: those with the margin, or where there are none the nearest."""
    side, margin = 32, 0.15
    safe = int(crop * margin)
    for value in torch.arange(0, 32.5, 0.5).tolist():
        (low, _), (high, _) = crop_bounds((value, value), side, crop, margin)
        starts = range(side - crop + 1)
        kept = [s for s in starts if s + safe <= value <= s + crop - safe]
        if kept:
            assert high == kept[-1]
            assert low in (kept[0], kept[0] - 1)  # rounded down, as the authors do
        else:
            assert low == high
            assert low in (0, side - crop)
        assert all(s <= value <= s + crop for s in (low, high))


def test_full_bank_holds_every_position() -> None:
    assert bank_positions(64, 59, 36).tolist() == [0, 1, 2, 3, 4, 5]
    assert bank_positions(64, 59, 10_000).tolist() == [0, 1, 2, 3, 4, 5]
    assert bank_positions(64, 59, 9).tolist() == [0, 2, 5]
    assert bank_positions(64, 64, 1).tolist() == [0]
    with pytest.raises(DiffcorrError, match="cover the image"):
        bank_positions(64, 20, 4)
    with pytest.raises(DiffcorrError, match="cover the image"):
        bank_positions(64, 20, 1)


def test_snap_keeps_the_point_in_sight() -> None:
    positions = bank_positions(64, 32, 9)  # 0, 16, 32
    assert snap(Crop(15, 1, True), (20.0, 20.0), 32, positions) == Crop(16, 0, True)
    for x in range(65):
        for start in range(max(0, x - 32), min(32, x) + 1):
            crop = snap(Crop(start, start), (x, x), 32, positions)
            assert crop.x <= x <= crop.x + 32
    full = bank_positions(64, 59, 36)
    assert all(snap(Crop(s, s), (30.0, 30.0), 59, full) == Crop(s, s) for s in range(6))


def test_a_latent_depends_on_its_crop_alone_to_the_last_bit() -> None:
    """However many others are encoded beside it: processes and runs ask for different ones."""
    backbone = tiny_backbone()
    image = {"a": torch.rand(3, IMAGE_SIZE, IMAGE_SIZE)}
    crops = [Crop(x, y) for x in range(3) for y in range(3)]
    together = LatentBank(backbone, 28)
    together.require(image, {"a": set(crops)})
    for crop in crops:
        alone = LatentBank(backbone, 28)
        alone.require(image, {"a": {crop}})
        assert torch.equal(alone["a", crop], together["a", crop])


def test_bank_encodes_each_crop_once() -> None:
    backbone = tiny_backbone()
    counts = []
    backbone.vae.register_forward_pre_hook(lambda *_: None)
    backbone.vae.encoder.register_forward_pre_hook(lambda _, args: counts.append(len(args[0])))
    images = {"a": torch.rand(3, IMAGE_SIZE, IMAGE_SIZE), "b": torch.rand(3, IMAGE_SIZE, IMAGE_SIZE)}
    bank = LatentBank(backbone, 28)
    bank.require(images, {"a": {Crop(0, 0), Crop(1, 0), Crop(2, 0)}})
    bank.require(images, {"a": {Crop(0, 0), Crop(2, 0)}, "b": {Crop(0, 0, True)}})
    assert counts == [BANK_BATCH, BANK_BATCH]  # three and one, filled up; none encoded twice
    flipped = images["b"][:, :28, :28].flip(-1)[None]
    expected = backbone.encode(torch.nn.functional.interpolate(flipped, size=(32, 32), mode="bilinear"))
    torch.testing.assert_close(bank["b", Crop(0, 0, True)], expected[0])
    bank.require(images, {"b": set()})
    with pytest.raises(KeyError):
        bank["a", Crop(0, 0)]
