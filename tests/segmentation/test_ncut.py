import numpy as np
import pytest
import torch
import torch.nn.functional as F

from diffcorr.backbones.unet import UNetBackbone
from diffcorr.errors import DiffcorrError, UnknownNameError
from diffcorr.segmentation import NCut, count_segments
from diffcorr.segmentation.normalized_cut import cosine_affinity, recursive_cut
from tests.segmentation.test_reader import random_image


def two_kinds() -> torch.Tensor:
    """Features (1, 64, 8) of a grid of 8 x 8: the upper 3 rows differ from the rest."""
    upper = (torch.arange(64) < 24).float()[:, None]
    a, b = torch.eye(8)[0], torch.eye(8)[1]
    noise = 0.1 * torch.rand(64, 8, generator=torch.Generator().manual_seed(0))
    return (upper * a + (1 - upper) * b + noise)[None]


@pytest.mark.parametrize("setting", [{}, {"num_segments": 2}, {"num_segments": "classes"}])
def test_regions_of_different_features_are_segments(setting: dict):
    labels = NCut(**setting).cluster(two_kinds(), (8, 8), [2])[0].argmax(0)
    assert len(labels[:24].unique()) == len(labels[24:].unique()) == 1
    assert labels[0] != labels[-1]


def test_scores_are_those_of_diffcut():
    """Mean of a segment's normalised features, times every position's (concept assignment of the paper)."""
    features = torch.rand(1, 36, 5, generator=torch.Generator().manual_seed(0))
    scores = NCut(tau=0.9).cluster(features, (6, 6))[0]
    unit = F.normalize(features[0], dim=1)
    labels = recursive_cut(cosine_affinity(unit, 10), 0.9)
    for k, own in enumerate(scores):
        torch.testing.assert_close(own, unit @ unit[labels == k].mean(0))
    assert len(scores) > 1


def test_the_features_are_the_output_of_the_last_layer_down(backbone: UNetBackbone):
    name = "down_blocks.1.attentions.0.transformer_blocks.0.attn1"
    image, kept = random_image(), []
    handle = backbone.unet.get_submodule(name).register_forward_hook(lambda m, i, output: kept.append(output))
    with torch.no_grad():
        pixels = torch.from_numpy(image).permute(2, 0, 1)[None] / 127.5 - 1
        latents = backbone.vae.encode(pixels).latent_dist.mean * backbone.vae.config.scaling_factor
        backbone.unet(latents, 300, backbone.null_prompt())
    handle.remove()
    (graph,) = NCut().affinity([image], backbone)
    assert graph.grid == (4, 4)
    torch.testing.assert_close(graph.values, kept[0][0], rtol=1e-4, atol=1e-6)
    (first,) = NCut(feature_layer=0).affinity([image], backbone)
    assert first.grid == (8, 8)
    (window,) = NCut(feature_layer=0, fit="letterbox").affinity([random_image(16, 32)], backbone)
    assert window.values.shape[0] == 4 * 8 == window.grid[0] * window.grid[1]


@pytest.mark.parametrize("signal", ["features", "attention"])
def test_masks_are_whole_for_any_image(signal: str, backbone: UNetBackbone):
    images = [random_image(20, 45), np.zeros((32, 32, 3), np.uint8), np.full((8, 9, 3), 255, np.uint8)]
    for setting in ({"tau": 0.9}, {"num_segments": 4}, {"tau": 2.0}):
        masks = NCut(signal=signal, **setting).segment(images, backbone=backbone)
        assert [mask.shape for mask in masks] == [image.shape[:2] for image in images]
        assert all(mask.min() >= 0 for mask in masks)
    assert count_segments(masks[0]) > 1


def test_wrong_settings_are_refused(backbone: UNetBackbone):
    with pytest.raises(UnknownNameError, match="known: features, attention"):
        NCut(signal="colour")
    with pytest.raises(DiffcorrError, match=r"0 < tau <= 2 and a positive alpha, found tau=3"):
        NCut(tau=3)
    with pytest.raises(DiffcorrError, match=">= 1 or 'classes', found 0"):
        NCut(num_segments=0)
    with pytest.raises(UnknownNameError, match="77"):
        NCut(feature_layer=77).segment([random_image()], backbone=backbone)
    with pytest.raises(DiffcorrError, match="number of classes of each of 1 images"):
        NCut(num_segments="classes").segment([random_image()], backbone=backbone)
