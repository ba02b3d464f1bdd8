"""Segmentation through the public API, on real diffusers classes with random weights."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from diffcorr.backbones.catalog import TINY_FOLDER
from diffcorr.errors import BackboneError, DiffcorrError, ImageError
from diffcorr.segmenter import Segmentation, Segmenter, renumber
from tests.helpers.fit_reference import image_of
from tests.helpers.tiny_models import save_tiny_pipeline

IMAGE = image_of(0, 60, 40)
TAU = 1e-4  # random weights look everywhere alike, so that only a fine threshold parts their maps


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_pipeline(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def segmenter(folder: Path) -> Segmenter:
    return Segmenter.from_pretrained(folder, tau=TAU)


@pytest.fixture(scope="module")
def segmentation(segmenter: Segmenter) -> Segmentation:
    return segmenter.segment(IMAGE)


def test_ids_have_no_gaps_and_keep_their_segments(segmenter: Segmenter, segmentation: Segmentation) -> None:
    mask = segmentation.mask
    assert mask.shape == (40, 60)
    assert mask.dtype == np.int64
    assert sorted(set(mask.ravel().tolist())) == list(range(segmentation.num_segments))
    assert segmentation.num_segments > 2
    (raw,) = segmenter.method.segment([IMAGE], backbone=segmenter.backbone)
    pairs = set(zip(raw.ravel().tolist(), mask.ravel().tolist(), strict=True))
    assert len(pairs) == segmentation.num_segments == len(set(raw.ravel().tolist()))


def test_gaps_between_ids_are_closed() -> None:
    found = renumber(np.array([[7, 7, 2], [9, 2, 2]]))
    assert np.array_equal(found, [[1, 1, 0], [2, 0, 0]])
    assert found.dtype == np.int64


def test_every_kind_of_image_gives_the_same_mask(
    segmenter: Segmenter, segmentation: Segmentation, tmp_path: Path
) -> None:
    Image.fromarray(IMAGE).save(tmp_path / "a.png")
    for kind in (tmp_path / "a.png", Image.fromarray(IMAGE), IMAGE / 255):
        assert np.array_equal(segmenter.segment(kind).mask, segmentation.mask)
    assert segmenter.segment(IMAGE[..., 0]).mask.shape == (40, 60)
    with torch.inference_mode():
        assert np.array_equal(segmenter.segment(IMAGE).mask, segmentation.mask)


def test_the_seed_decides_the_noise(folder: Path) -> None:
    def mask(seed: int) -> list[int]:
        noisy = Segmenter.from_pretrained(folder, tau=TAU, add_noise=True, seed=seed)
        return noisy.segment(IMAGE).mask.ravel().tolist()

    assert mask(0) == mask(0)
    assert mask(0) != mask(1)


def test_settings_reach_the_method(folder: Path) -> None:
    assert Segmenter.from_pretrained(folder, tau=1e3).segment(IMAGE).num_segments == 1
    reference = Segmenter.from_pretrained(folder, preset="diffseg_reference", tau=[0.5, 0.25], seed=4).method
    assert (reference.mode, reference.antialias, reference.anchors) == ("reference", False, 16)
    assert (list(reference.tau), reference.seed) == ([0.5, 0.25], 4)  # type: ignore[arg-type]


def test_plain_values_and_a_picture(segmentation: Segmentation, tmp_path: Path) -> None:
    read = json.loads(json.dumps(segmentation.to_dict()))
    assert read["size"] == [60, 40]
    assert [s["id"] for s in read["segments"]] == list(range(segmentation.num_segments))
    for segment in read["segments"]:
        places = [(x, y) for y in range(40) for x in range(60) if segmentation.mask[y, x] == segment["id"]]
        xs, ys = zip(*places, strict=True)
        assert segment["area"] == len(places)
        assert segment["bbox"] == [min(xs), min(ys), max(xs) + 1, max(ys) + 1]
    figure = segmentation.plot(tmp_path / "masks.png")
    with Image.open(tmp_path / "masks.png") as picture:
        assert picture.size == tuple((figure.get_size_inches() * figure.dpi).round())


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"preset": "kmeans_pixels"},
            "unknown preset 'kmeans_pixels'; known: diffseg, diffseg_auto, diffseg_paper, diffseg_reference",
        ),
        ({"tua": 1}, "unknown setting 'tua'; known: add_noise"),
        ({"tau": "high"}, "expected tau as a number such as 0.9, found 'high'"),
        ({"anchors": 0}, "one or more anchors"),
        ({"layers": [50]}, "unknown self-attention layer"),
    ],
)
def test_a_wrong_setting_is_one_line(folder: Path, changes: dict[str, object], told: str) -> None:
    with pytest.raises(DiffcorrError, match=told) as error:
        Segmenter.from_pretrained(folder, **changes)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


def test_a_wrong_image_or_model_is_one_line(segmenter: Segmenter, tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"no file at no\.png"):
        segmenter.segment("no.png")
    with pytest.raises(BackboneError, match="expected a diffusers model"):
        Segmenter.from_pretrained(tmp_path)


@pytest.mark.skipif(not TINY_FOLDER.is_dir(), reason="the embedded model's weights are not in this checkout")
def test_the_embedded_model_is_the_default() -> None:
    assert Segmenter.from_pretrained().segment(IMAGE).mask.shape == (40, 60)


def test_cached_maps_are_merged_again(segmenter: Segmenter, segmentation: Segmentation) -> None:
    maps = segmenter.read(IMAGE)
    assert np.array_equal(segmenter.merge(maps).mask, segmentation.mask)
    assert segmenter.merge(maps, tau=1e3).num_segments == 1
    counts = [segmenter.merge(maps, tau=tau).num_segments for tau in (1e-5, 1e-4, 1e-3)]
    assert counts == sorted(counts, reverse=True)
    assert segmenter.merge(maps, tau="auto").num_segments >= 1
    with pytest.raises(DiffcorrError, match="positive thresholds"):
        segmenter.merge(maps, tau=-1)
    named = segmenter.name(segmentation, ["red", "ab"], template="a {}")
    assert named.words == segmenter.segment(IMAGE, words=["red", "ab"], template="a {}").words
    with pytest.raises(DiffcorrError, match="found neither"):
        segmenter.name(segmentation)


def test_several_images_are_cut_as_one_by_one(segmenter: Segmenter, segmentation: Segmentation) -> None:
    other = image_of(1, 33, 21)
    first, second = segmenter.segment_all([IMAGE, other])
    assert np.array_equal(first.mask, segmentation.mask)
    assert np.array_equal(second.mask, segmenter.segment(other).mask)


@pytest.mark.parametrize("num", [3, 256, 300])
def test_a_saved_mask_holds_its_ids(num: int, tmp_path: Path) -> None:
    mask = np.arange(600).reshape(20, 30) % num
    Segmentation(image_of(0, 30, 20), mask).save(tmp_path / "new" / "mask.png")
    with Image.open(tmp_path / "new" / "mask.png") as picture:
        assert picture.mode == ("P" if num <= 256 else "I;16")
        assert np.array_equal(np.asarray(picture), mask)
        if num == 3:
            assert len(set(map(tuple, np.asarray(picture.convert("RGB")).reshape(-1, 3).tolist()))) == 3
