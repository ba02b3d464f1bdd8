"""What every family of backbones can be used for, and what it says where it cannot."""

import numpy as np
import pytest
import torch

from diffcorr.attention.capture import read_prompts
from diffcorr.backbones import (
    LatentBackbone,
    PixArtBackbone,
)
from diffcorr.correspondence import FitConfig, PromptFit, TransferConfig
from diffcorr.errors import BackboneError, DiffcorrError, LayerError
from diffcorr.segmentation import DiffSeg
from diffcorr.types import Query
from tests.helpers.families import JOINT, SHAPE, latents_of, prompts_of
from tests.helpers.fit_reference import image_of


def test_prompts_that_share_a_latent(backbone: LatentBackbone) -> None:
    latents, prompts, rows = latents_of(), prompts_of(backbone, 3), [1, 0, 1]
    with torch.no_grad():
        together = backbone.denoise(latents, 140, prompts, rows)
        alone = backbone.denoise(latents[rows], 140, prompts)
    torch.testing.assert_close(together, alone)
    assert together is not None
    assert together.shape[1:] == (2 * SHAPE[0] if isinstance(backbone, PixArtBackbone) else SHAPE[0], 8, 12)


def test_features_are_a_blocks_output(backbone: LatentBackbone) -> None:
    latents, prompts = latents_of(), prompts_of(backbone)
    last = len(backbone._blocks()) - 1
    seen = []
    handle = backbone._blocks()[last].register_forward_hook(lambda m, a, out: seen.append(out))
    with torch.no_grad():
        backbone.denoise(latents, 140, prompts)
        handle.remove()
        found = backbone.features(latents, 140, prompts, last)
    whole = seen[0][-1] if isinstance(seen[0], tuple) else seen[0]
    if found.shape != whole.shape:  # (B, N, D): row by row
        assert found.shape[-2:] == (4, 6)
        torch.testing.assert_close(found[:, :, 1, 2], whole[:, -24:][:, 6 + 2])
    else:
        torch.testing.assert_close(found, whole)


def test_prompts_are_found_in_a_picture(backbone: LatentBackbone) -> None:
    fit = FitConfig(steps=2, rounds=1, layers="paper", token=1, bank_size=4, pack_size=2)
    method = PromptFit(backbone, fit=fit, transfer=TransferConfig(layers="paper", token=1, num_crops=2))
    queries = [Query("toy", "a", f"k{i}", point) for i, point in enumerate([(5.0, 6.0), (30.0, 33.0)])]
    method.fit(queries, {"a": image_of(0, 48, 40)})
    before = method.embeddings.get(queries[0].id)
    assert before is not None
    assert before.shape == (1, *backbone.embedding_shape)
    results = method.locate(queries, image_of(1, 60, 36), "toy/b")
    for result in results:
        assert 0 <= result.point[0] <= 60
        assert 0 <= result.point[1] <= 36
        assert set(result.layer_points) == {layer.name for layer in backbone.resolve_layers("cross", "paper")}


@pytest.mark.parametrize("fit", ["stretch", "native"])
def test_a_picture_is_cut_into_segments(backbone: LatentBackbone, fit: str) -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    (mask,) = DiffSeg(tau=0.01, anchors=4, fit=fit).segment([image], backbone=backbone)
    assert mask.shape == (32, 48)
    assert mask.min() >= 0


def test_what_it_needs(family: str, backbone: LatentBackbone) -> None:
    needs = backbone.needs()
    assert needs.family == type(backbone).__name__.removesuffix("Backbone")
    assert needs.multiple == 8  # four pixels a latent, and halved once
    assert (needs.latent_channels, needs.latent_downscale, needs.image_size) == (4, 4, 32)
    assert needs.prediction == ("flow" if family in JOINT else "epsilon")
    assert needs.embedding == backbone.embedding_shape


def test_what_a_family_cannot_do_is_said(family: str, backbone: LatentBackbone) -> None:
    latents, prompts = latents_of(), prompts_of(backbone)
    if family in ("unet", "sdxl"):
        assert read_prompts(backbone, latents, 0 * latents, 140, prompts, "paper", trunk="null")
        return
    with pytest.raises(LayerError, match=r"reads the prompt itself .* use trunk=prompt"):
        read_prompts(backbone, latents, 0 * latents, 140, prompts, "paper", trunk="null")
    with pytest.raises(BackboneError, match=r"multiples of 8 pixels for .*, found 32x44"):
        backbone.denoise(latents[..., :11], 140, prompts)
    if family in ("sd3", "sd35"):
        with pytest.raises(BackboneError, match=r"at most 96 pixels for .*, found 104"):
            backbone.denoise(torch.zeros(1, 4, 8, 26).double(), 140, prompts[:1])


def test_a_features_start_needs_keys_of_the_prompt_itself(family: str, backbone: LatentBackbone) -> None:
    """Elsewhere its linear equations would be of something else than the prompt."""
    config = FitConfig(steps=1, rounds=1, init="features", layers="all", loss_resolution=None)
    if family in ("unet", "sdxl"):
        PromptFit(backbone, fit=config)
        return
    with pytest.raises(DiffcorrError, match="expected a U-Net for init=features, found"):
        PromptFit(backbone, fit=config)
