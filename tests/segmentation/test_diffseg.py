from collections import defaultdict

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from diffcorr.backbones.unet import UNetBackbone
from diffcorr.errors import BackboneError, DiffcorrError, UnknownNameError
from diffcorr.segmentation import DiffSeg
from diffcorr.segmentation.aggregate import aggregate

NUM_HEADS = 4  # of every layer of the random backbone


def random_image(height: int = 32, width: int = 32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def hooked_attention(backbone: UNetBackbone, image: np.ndarray, timestep: int) -> dict[int, torch.Tensor]:
    """Self-attention of a plain, full pass, from the outputs of the query and key projections."""
    outputs: dict[str, torch.Tensor] = {}
    handles = [
        module.register_forward_hook(lambda m, i, output, name=name: outputs.__setitem__(name, output))
        for name, module in backbone.unet.named_modules()
        if name.endswith(("attn1.to_q", "attn1.to_k"))
    ]
    with torch.no_grad():
        pixels = torch.from_numpy(image).permute(2, 0, 1)[None] / 127.5 - 1
        latents = backbone.vae.encode(pixels).latent_dist.mean * backbone.vae.config.scaling_factor
        backbone.unet(latents, timestep, backbone.null_prompt())
    for handle in handles:
        handle.remove()
    layers = defaultdict(list)
    for name, query in outputs.items():
        if name.endswith("to_q"):
            key = outputs[name[:-4] + "to_k"]
            q, k = (x[0].unflatten(-1, (NUM_HEADS, -1)).transpose(0, 1) for x in (query, key))
            layers[round(q.shape[1] ** 0.5)].append((q @ k.mT / q.shape[-1] ** 0.5).softmax(-1).mean(0))
    return {side: torch.stack(maps).mean(0)[None] for side, maps in layers.items()}


def test_affinity_is_the_aggregated_attention_of_a_plain_pass(backbone: UNetBackbone):
    maps = hooked_attention(backbone, random_image(), timestep=300)
    assert sorted(maps) == [4, 8]
    found = DiffSeg().affinity([random_image()], backbone)
    torch.testing.assert_close(found, aggregate(maps), rtol=1e-4, atol=1e-7)
    only = DiffSeg(sides=[4]).affinity([random_image()], backbone)
    largest = DiffSeg(sides=1).affinity([random_image()], backbone)
    assert torch.equal(largest, DiffSeg(sides=[8]).affinity([random_image()], backbone))
    torch.testing.assert_close(only, maps[4], rtol=1e-4, atol=1e-7)


def test_noise_is_added_only_where_asked_and_is_seeded(backbone: UNetBackbone):
    images = [random_image()]
    clean = DiffSeg().affinity(images, backbone)
    noisy = DiffSeg(add_noise=True).affinity(images, backbone)
    assert not torch.allclose(noisy, clean, atol=1e-7)
    assert torch.equal(noisy, DiffSeg(add_noise=True).affinity(images, backbone))
    assert not torch.equal(noisy, DiffSeg(add_noise=True, seed=1).affinity(images, backbone))
    twice = DiffSeg(add_noise=True).affinity(images * 2, backbone)
    torch.testing.assert_close(twice, noisy.expand_as(twice), rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize("mode", ["exact", "reference"])
@pytest.mark.parametrize("refine", [False, True])
def test_two_regions_that_ignore_each_other_are_two_segments(mode: str, refine: bool):
    left = (torch.arange(16) % 16 < 7).repeat(16, 1).flatten()
    graph = torch.where(left[:, None] == left, 1.0, 0.01).double()
    graph += 0.02 * torch.rand(256, 256, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    graph /= graph.sum(1, keepdim=True)
    mask = DiffSeg(anchors=8, tau=0.3, mode=mode, refine=refine).group(graph, (48, 32))
    expected = F.interpolate(left.view(1, 1, 16, 16).float(), (48, 32), mode="nearest")[0, 0] == 0
    assert torch.equal(mask, expected.long())


def test_low_precision_of_a_trainer_does_not_reach_the_merging(backbone: UNetBackbone):
    graph = DiffSeg().affinity([random_image()], backbone)[0]
    method = DiffSeg(tau=1e-3, refine=True)
    expected = method.proposals(graph)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(method.proposals(graph), expected)


def test_any_size_and_aspect_and_only_finite_work(backbone: UNetBackbone):
    images = [random_image(40, 25, 1), random_image(17, 64, 2), np.zeros((32, 32, 3), np.uint8)]
    for method in (DiffSeg(tau=0.01), DiffSeg(tau=0.01, anchors=1), DiffSeg(tau=[0.001], refine=True)):
        masks = method.segment(images, backbone=backbone)
        assert [mask.shape for mask in masks] == [(40, 25), (17, 64), (32, 32)]
        assert all(mask.dtype == np.int64 and mask.min() >= 0 for mask in masks)


def test_lower_thresholds_keep_more_segments(backbone: UNetBackbone):
    graph = DiffSeg().affinity([random_image()], backbone)[0]
    counts = [len(DiffSeg(tau=tau).proposals(graph)) for tau in (1e-6, 1e-3, 10.0)]
    assert counts[0] >= counts[1] >= counts[2] == 1
    assert counts[0] > 1


def test_the_backbone_is_left_as_it_was(backbone: UNetBackbone):
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    processors = dict(backbone.unet.attn_processors)
    DiffSeg().segment([random_image()], backbone=backbone)
    assert all(torch.equal(before[name], value) for name, value in backbone.state_dict().items())
    assert backbone.unet.attn_processors == processors


def test_errors_come_before_any_work(backbone: UNetBackbone):
    with pytest.raises(DiffcorrError, match="positive thresholds"):
        DiffSeg(tau=0.0)
    with pytest.raises(UnknownNameError, match="known: exact, reference"):
        DiffSeg(mode="fast")
    with pytest.raises(DiffcorrError, match="anchors=0, timestep=1000"):
        DiffSeg(anchors=0, timestep=1000)
    with pytest.raises(BackboneError, match="needs a backbone"):
        DiffSeg().segment([random_image()])
    with pytest.raises(UnknownNameError, match="resolution 32; known: 8, 4"):
        DiffSeg(sides=[32]).segment([random_image()], backbone=backbone)
    with pytest.raises(UnknownNameError, match="99"):
        DiffSeg(layers=[99]).segment([random_image()], backbone=backbone)
