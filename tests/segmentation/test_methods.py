"""Every segmentation config builds a method that keeps the contract."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from lightning import Trainer
from torch.utils.data import DataLoader

from diffcorr.backbones.unet import UNetBackbone
from diffcorr.config import compose, config_folder, instantiate
from diffcorr.errors import BackboneError, DiffcorrError
from diffcorr.segmentation import (
    AttentionGrouper,
    KMeansPixels,
    OneSegment,
    SegmentationMethod,
    SegmentationModule,
    WordLabels,
    count_segments,
)

CONFIGS = sorted(
    path.stem
    for path in (Path(config_folder()) / "method").glob("*.yaml")
    if "diffcorr.segmentation" in path.read_text()
    or path.stem.startswith(("diffseg", "kmeans", "ncut"))  # built on another one
)


def build(name: str) -> SegmentationMethod:
    method = instantiate(compose("eval", ["task=segmentation", f"method={name}"]).method)
    if isinstance(method, WordLabels):  # words and captions come from the data set; the toy reads few tokens
        method = replace(method, words=("red", "ab"), captions=None, template="a {}")
    return method


def random_images() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in ((32, 32), (20, 45), (64, 40))]


class Toy:
    name, split, classes = "toy", "test", ("a", "b")

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int):
        image = random_images()[index]
        label = np.zeros(image.shape[:2], np.int64)
        return {"image_id": f"i{index}", "image": image, "label": label, "tags": {}}


def test_the_configs_are_found():
    baselines = {"kmeans_pixels", "one_segment", "kmeans_c", "kmeans_s"}
    assert {"diffseg", "diffseg_reference", "diffseg_paper", "ncut", "ncut_kway"} | baselines <= set(CONFIGS)


@pytest.mark.parametrize("name", CONFIGS)
def test_contract(name: str, backbone: UNetBackbone):
    method = build(name)
    assert isinstance(method, SegmentationMethod)
    assert method.name == name
    images, counts = random_images(), [3, 2, 5]
    before = [image.copy() for image in images]
    masks = method.segment(images, backbone=backbone, num_segments=counts)
    for image, copy, mask, count in zip(images, before, masks, counts, strict=True):
        assert mask.shape == image.shape[:2]
        assert mask.dtype == np.int64
        assert mask.min() >= 0
        assert np.array_equal(image, copy)
        if method.counts_from != "image":
            assert count_segments(mask) <= count
        if method.name == "kmeans_pixels":
            assert count_segments(mask) == count
    again = method.segment(images, backbone=backbone, num_segments=counts)
    alone = method.segment(images[1:2], backbone=backbone, num_segments=counts[1:2])
    assert all(np.array_equal(a, b) for a, b in zip(masks, again, strict=True))
    # float sums of a batch differ in the last digit, which may decide a pixel between two segments
    assert (alone[0] == masks[1]).mean() > 0.99


@pytest.mark.parametrize("name", CONFIGS)
def test_images_of_one_colour_and_of_one_pixel(name: str, backbone: UNetBackbone):
    images = [
        np.zeros((24, 40, 3), np.uint8),
        np.full((9, 9, 3), 255, np.uint8),
        np.ones((1, 1, 3), np.uint8),
    ]
    masks = build(name).segment(images, backbone=backbone, num_segments=[3, 1, 1])
    for image, mask in zip(images, masks, strict=True):
        assert mask.shape == image.shape[:2]
        assert np.issubdtype(mask.dtype, np.integer)
        assert 0 <= mask.min() <= mask.max() < 256


@pytest.mark.parametrize("name", [n for n in CONFIGS if isinstance(build(n), AttentionGrouper)])
@pytest.mark.parametrize("fit", ["crop", "letterbox", "native"])
def test_every_grouper_takes_images_of_any_aspect(name: str, fit: str, backbone: UNetBackbone):
    method = replace(build(name), fit=fit)
    masks = method.segment(random_images(), backbone=backbone, num_segments=[3, 2, 5])
    assert [mask.shape for mask in masks] == [image.shape[:2] for image in random_images()]


@pytest.mark.parametrize("name", CONFIGS)
def test_the_trainer_predicts_one_mask_for_every_image(name: str, backbone: UNetBackbone):
    counts = {"i0": 3, "i1": 2, "i2": 5}
    module = SegmentationModule(build(name), backbone, counts)
    loader = DataLoader(Toy(), batch_size=2, collate_fn=list)
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    predictions = [p for batch in trainer.predict(module, loader) for p in batch]
    assert [p.image_id for p in predictions] == ["i0", "i1", "i2"]
    expected = module.method.segment(
        random_images()[:2], backbone=backbone, num_segments=list(counts.values())[:2]
    )
    assert all(np.array_equal(p.mask, mask) for p, mask in zip(predictions[:2], expected, strict=True))


def test_kmeans_pixels_finds_the_colours():
    colours = np.array([[250, 10, 10], [10, 250, 10], [10, 10, 250]], dtype=np.uint8)
    truth = np.random.default_rng(0).integers(0, 3, (12, 9))
    noise = np.random.default_rng(1).integers(0, 5, (12, 9, 1), dtype=np.uint8)
    (mask,) = KMeansPixels().segment([colours[truth] + noise], num_segments=[3])
    assert len(set(zip(mask.flat, truth.flat, strict=True))) == 3


def test_kmeans_pixels_by_place_cuts_a_plain_image():
    image = np.zeros((8, 32, 3), np.uint8)
    (mask,) = KMeansPixels(position_weight=1.0).segment([image], num_segments=[2])
    assert len(np.unique(mask[:, :16])) == len(np.unique(mask[:, 16:])) == 1
    assert mask[0, 0] != mask[0, -1]
    (plain,) = KMeansPixels().segment([image], num_segments=[2])
    assert count_segments(plain) == 1


def test_what_a_method_needs_is_asked_for_at_once(backbone: UNetBackbone):
    with pytest.raises(BackboneError, match="diffseg needs a backbone"):
        SegmentationModule(build("diffseg"))
    with pytest.raises(DiffcorrError, match="kmeans_pixels needs the number of segments"):
        SegmentationModule(KMeansPixels(), backbone)
    with pytest.raises(DiffcorrError, match="for each of 3 images, found 1"):
        KMeansPixels().segment(random_images(), num_segments=[2])
    module = SegmentationModule(KMeansPixels(), num_segments={"i0": 2})
    with pytest.raises(DiffcorrError, match="for image 'i1'"):
        module.predict_step([Toy()[0], Toy()[1]])
    assert OneSegment().segment(random_images())[0].max() == 0
