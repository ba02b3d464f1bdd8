"""Label maps carried from image to image: voting by hand and in loops, and every config on a real model."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hydra.utils import get_class
from omegaconf import OmegaConf

from diffcorr.attention.mean import MeanAttention
from diffcorr.backbones.unet import UNetBackbone
from diffcorr.config import compose, instantiate, load_option, option_names
from diffcorr.correspondence.base import build_method
from diffcorr.correspondence.features import FeatureSource
from diffcorr.errors import DiffcorrError, ImageError, UnknownNameError
from diffcorr.joint import CarryFeatures, CopyLabel, LabelCarrier
from diffcorr.joint.carry import label_shares, snap_to_segments, to_pixels, vote
from diffcorr.propagator import Propagator
from diffcorr.segmentation import KMeansPixels, OneSegment
from tests.helpers.tiny_models import save_tiny_pipeline

COLOURS = np.array([[20, 20, 20], [250, 30, 30], [30, 250, 30]], np.uint8)
CONFIGS = [n for n in option_names("method") if "diffcorr.joint" in load_option("method", n)._target_]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory):
    return save_tiny_pipeline(tmp_path_factory.mktemp("pipeline"))


class Colours(FeatureSource):
    """The picture itself, at 16 x 16 cells."""

    def __init__(self) -> None:
        super().__init__(16)

    def compute(self, image: np.ndarray, key: str, prompt: str) -> torch.Tensor:
        pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float()
        return F.interpolate(pixels, (16, 16), mode="area")[0]


def scene(moved: int) -> np.ndarray:
    """A label map (32, 32): class 2 beside class 1 before class 0."""
    label = np.zeros((32, 32), np.int64)
    label[8:20, 4 + moved : 12 + moved] = 1
    label[8:20, 12 + moved : 16 + moved] = 2
    return label


def test_shares_of_cells_by_hand():
    label = np.array([[0, 0, 3, -1], [0, 3, 3, -1]])
    classes, shares = label_shares(label, (1, 2))
    assert classes.tolist() == [0, 3]
    assert torch.allclose(shares, torch.tensor([[[0.75, 0.0]], [[0.25, 1.0]]]))
    assert label_shares(np.array([[1, -1]]), (1, 2))[1].tolist() == [[[1.0, 0.0]]]


def test_votes_against_a_loop():
    generator = torch.Generator().manual_seed(0)
    source, target = (torch.randn(5, *grid, generator=generator) for grid in ((3, 4), (2, 3)))
    shares = torch.rand(3, 3, 4, generator=generator)
    shares /= shares.sum(0)
    shares[:, 1, 2] = 0  # unknown there: not asked
    found = vote(source, shares, target, neighbours=3, temperature=0.2)
    known = [(y, x) for y in range(3) for x in range(4) if (y, x) != (1, 2)]
    for y in range(2):
        for x in range(3):
            near = sorted(
                (
                    (float(F.cosine_similarity(target[:, y, x], source[:, v, u], dim=0)), v, u)
                    for v, u in known
                ),
                reverse=True,
            )[:3]
            weights = np.exp([c / 0.2 for c, _, _ in near])
            votes = sum(w * shares[:, v, u].numpy() for w, (_, v, u) in zip(weights, near, strict=True))
            np.testing.assert_allclose(found[:, y, x].numpy(), votes / weights.sum(), rtol=1e-4)


def test_segments_decide_what_is_the_object_by_hand():
    votes = torch.tensor([[[0.6, 0.2, 0.9, 0.4]], [[0.1, 0.5, 0.1, 0.6]], [[0.3, 0.3, 0.0, 0.0]]])
    # segment 0 has 0.4 for class 0 on average and is the object, also where a pixel says no; segment 4 is not
    assert snap_to_segments(votes, np.array([[0, 0, 4, 4]])).tolist() == [[2, 1, 0, 0]]


def test_votes_at_pixels_are_bilinear():
    votes = torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(0))
    expected = F.interpolate(votes[None], (7, 9), mode="bilinear")[0]
    assert torch.allclose(to_pixels(votes, (7, 9)), expected, atol=1e-6)


@pytest.mark.parametrize("segments", [None, KMeansPixels(), OneSegment()])
def test_a_label_goes_where_its_colour_went(segments):
    if isinstance(segments, KMeansPixels):
        segments = type(
            "Three", (), {"segment": lambda _, images, **k: KMeansPixels().segment(images, num_segments=[3])}
        )()
    carrier = CarryFeatures(Colours(), cells=16, neighbours=1, segments=segments)
    source, target = scene(0), scene(10)
    found = carrier.carry(COLOURS[source], source, COLOURS[target], "a", "b")
    if isinstance(segments, OneSegment):  # the whole image is one, and most of it is not the object
        assert (found == 0).all()
    else:
        assert np.array_equal(found, target)
    copied = CopyLabel().carry(COLOURS[source], source, COLOURS[target])
    assert np.array_equal(copied, source)


def test_a_copy_is_stretched_by_hand():
    label = np.array([[0, 1], [2, -1]])
    image, wide = np.zeros((2, 2, 3), np.uint8), np.zeros((2, 4, 3), np.uint8)
    assert CopyLabel().carry(image, label, wide).tolist() == [[0, 0, 1, 1], [2, 2, 0, 0]]


def test_what_is_asked_must_be_there():
    carrier, image = CarryFeatures(Colours()), COLOURS[scene(0)]
    for label in (np.zeros((4, 4), int), np.full((32, 32), -1)):
        with pytest.raises(DiffcorrError, match="like its image with known pixels"):
            carrier.carry(image, label, image)
    for wrong in ({"cells": 0}, {"neighbours": 0}, {"temperature": 0.0}):
        with pytest.raises(DiffcorrError, match="expected"):
            CarryFeatures(Colours(), **wrong)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_config_keeps_the_contract(name: str, folder):
    backbone = UNetBackbone.from_pretrained(folder)
    node = load_option("method", name, {"seed": 0})
    if "features" in node:
        node.features.block = 0
    rng = np.random.default_rng(0)
    source, target = (rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in ((20, 30), (40, 24)))
    label = rng.choice([-1, 0, 3, 9], (20, 30))
    before = label.copy()
    found = []
    for _ in range(2):
        carrier = build_method(instantiate(node), backbone, MeanAttention())
        assert isinstance(carrier, LabelCarrier)
        assert carrier.name == name
        found.append(carrier.carry(source, label, target, "a", "b", "cat"))
    assert found[0].shape == (40, 24)
    assert found[0].dtype == np.int64
    assert set(np.unique(found[0])) <= {0, 3, 9}
    assert np.array_equal(*found)
    assert np.array_equal(label, before)


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_loaded_alone_is_the_one_that_hydra_composes(name: str):
    composed = compose("eval", ["task=propagation", f"method={name}"])
    alone = load_option("method", name, {"seed": 0})
    assert OmegaConf.to_container(alone, resolve=True) == OmegaConf.to_container(
        composed.method, resolve=True
    )


def test_the_configs_are_found():
    assert {"carry_features", "carry_segments", "copy_label"} <= set(CONFIGS)
    assert get_class(load_option("method", "carry_segments", {"seed": 0})._target_) is CarryFeatures


def test_a_mask_is_carried_in_a_few_lines(folder, tmp_path):
    propagator = Propagator.from_pretrained(folder, block=0, cells=8)
    rng = np.random.default_rng(0)
    source, target = (rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in ((20, 30), (40, 24)))
    mask = np.zeros((20, 30), bool)
    mask[:, :15] = True
    carried = propagator.carry(source, mask, target, names=["rest", "object"])
    assert carried.label.shape == (40, 24)
    assert set(np.unique(carried.label)) <= {0, 1}
    assert np.array_equal(carried.label, propagator.carry(source, mask, target).label)
    carried.plot(tmp_path / "carried.png")
    assert (tmp_path / "carried.png").stat().st_size > 0
    for wrong in (mask[:5], mask.astype(float), np.full((20, 30), -1)):
        with pytest.raises(ImageError, match=r"expected a label map of integers \(20, 30\)"):
            propagator.carry(source, wrong, target)
    with pytest.raises(UnknownNameError, match="known: carry_features, carry_segments"):
        Propagator.from_pretrained(folder, preset="dift")
    with pytest.raises(UnknownNameError, match="unknown setting 'cels'"):
        Propagator.from_pretrained(folder, cels=3)
