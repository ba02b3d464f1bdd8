import numpy as np
import pytest
import torch
import torch.nn.functional as F

from diffcorr.backbones.unet import UNetBackbone
from diffcorr.errors import DiffcorrError, UnknownNameError
from diffcorr.segmentation import DiffSeg, Graph
from diffcorr.segmentation.merge import present


def random_image(height: int = 32, width: int = 32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def halves() -> tuple[Graph, torch.Tensor]:
    """A graph of 16 x 16 whose left 7 columns and right 9 ignore one another, and which cells are left."""
    left = (torch.arange(16) % 16 < 7).repeat(16, 1).flatten()
    graph = torch.where(left[:, None] == left, 1.0, 0.01).double()
    graph += 0.02 * torch.rand(256, 256, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return Graph(graph / graph.sum(1, keepdim=True), (16, 16), (0, 0, 16, 16)), left


@pytest.mark.parametrize("mode", ["exact", "reference"])
@pytest.mark.parametrize("refine", [False, True])
@pytest.mark.parametrize("tau", [0.3, [0.2, 0.4], "auto"])
@pytest.mark.parametrize("assign", ["highest", "nearest"])
def test_two_regions_that_ignore_each_other_are_two_segments(mode: str, refine: bool, tau, assign: str):
    graph, left = halves()
    mask = DiffSeg(anchors=8, tau=tau, mode=mode, refine=refine, assign=assign).group(graph, (48, 32))
    expected = F.interpolate(left.view(1, 1, 16, 16).float(), (48, 32), mode="nearest")[0, 0] == 0
    assert torch.equal(mask, expected.long())


def test_nearest_does_not_favour_small_segments():
    """A wide segment spreads its sum of 1 thinly: where both are present, the small one is the higher."""
    wide = (torch.arange(256) % 16 < 13).float()
    small = 1 - wide
    values = torch.where(wide[:, None] == 1, wide + 0.15 * small, small + 0.6 * wide)
    graph = Graph(values / values.sum(1, keepdim=True), (16, 16), (0, 0, 16, 16))
    masks = {a: DiffSeg(tau=0.1, assign=a).group(graph, (16, 16)) for a in ("highest", "nearest")}
    assert torch.equal(masks["nearest"], small.view(16, 16).long())
    assert masks["highest"].unique().numel() == 2


def test_low_precision_of_a_trainer_does_not_reach_the_merging(backbone: UNetBackbone):
    (graph,) = DiffSeg().affinity([random_image()], backbone)
    for method in (DiffSeg(tau=1e-3, refine=True), DiffSeg(tau="auto", assign="nearest")):
        expected = method.group(graph, (32, 32))
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(method.group(graph, (32, 32)), expected)


def test_any_size_and_aspect_and_only_finite_work(backbone: UNetBackbone):
    images = [random_image(40, 25, 1), random_image(17, 64, 2), np.zeros((32, 32, 3), np.uint8)]
    settings = ({"tau": 0.01}, {"tau": 0.01, "anchors": 1}, {"tau": [0.001], "refine": True}, {"tau": "auto"})
    for setting in settings:
        masks = DiffSeg(**setting).segment(images, backbone=backbone)
        assert [mask.shape for mask in masks] == [(40, 25), (17, 64), (32, 32)]
        assert all(mask.dtype == np.int64 and mask.min() >= 0 for mask in masks)


def test_lower_thresholds_keep_more_segments(backbone: UNetBackbone):
    (graph,) = DiffSeg().affinity([random_image()], backbone)
    counts = [
        int(present(DiffSeg(tau=tau).proposals(graph.values[None], graph.grid)).sum())
        for tau in (1e-6, 1e-3, 10.0)
    ]
    assert counts[0] >= counts[1] >= counts[2] == 1
    assert counts[0] > 1


@pytest.mark.parametrize("setting", [{}, {"assign": "nearest", "refine": True}, {"mode": "reference"}])
def test_a_sweep_gives_the_masks_of_single_runs(setting: dict, backbone: UNetBackbone):
    image, taus = random_image(20, 40), [3e-4, 1e-3, [1e-3, 2e-3], 0.5]
    method = DiffSeg(fit="crop", **setting)
    (graph,) = method.affinity([image], backbone)
    masks = method.sweep(graph, (20, 40), taus)
    for tau, mask in zip(taus, masks, strict=True):
        assert torch.equal(mask, DiffSeg(fit="crop", tau=tau, **setting).group(graph, (20, 40)))
    assert masks[0].unique().numel() > masks[-1].unique().numel() == 1


def test_errors_come_before_any_work():
    with pytest.raises(DiffcorrError, match="positive thresholds"):
        DiffSeg(tau=0.0)
    with pytest.raises(DiffcorrError, match="a list of numbers or 'auto', found 'best'"):
        DiffSeg(tau="best")
    with pytest.raises(UnknownNameError, match="known: exact, reference"):
        DiffSeg(mode="fast")
    with pytest.raises(UnknownNameError, match="known: highest, nearest"):
        DiffSeg(assign="best")
    with pytest.raises(DiffcorrError, match="one or more anchors, found 0"):
        DiffSeg(anchors=0)
    with pytest.raises(DiffcorrError, match="one or more iterations"):
        DiffSeg(tau="auto", iterations=0)
