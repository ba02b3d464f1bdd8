"""Prompts that see one latent share what no prompt has touched; results are those of separate passes."""

import pytest
import torch
from diffusers import UNet2DConditionModel

from diffcorr.attention import capture
from diffcorr.backbones import UNetBackbone
from tests.helpers.tiny_models import NUM_TOKENS, WIDTH, tiny_backbone, tiny_scheduler, tiny_vae


def late_attention() -> UNetBackbone:
    """The first block has no attention, as in SDXL, and projections are linear, as in SD 2."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=8,
        layers_per_block=2,
        block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=4,
        use_linear_projection=True,
    )
    backbone = UNetBackbone(unet, tiny_vae(), tiny_scheduler(), name="late")
    backbone.embedding_shape = (NUM_TOKENS, WIDTH)
    return backbone.double()


@pytest.mark.parametrize("build", [lambda: tiny_backbone(torch.float64), late_attention])
def test_same_maps_and_gradients_as_separate_passes(build) -> None:
    backbone = build()
    latents = torch.randn(2, 4, 8, 8, dtype=torch.float64)
    rows = [0, 1, 0, 0, 1]
    embeds = torch.randn(5, NUM_TOKENS, WIDTH, dtype=torch.float64, requires_grad=True)
    results = []
    for shared_latents, given in ((latents, rows), (latents[rows], None)):
        with capture(backbone, "all", stop_early=False) as maps:
            out = backbone.denoise(shared_latents, 140, embeds, given)
        read = torch.stack([m.tensor.square().sum() for m in maps.values()])
        (gradient,) = torch.autograd.grad(read.sum() + out.sum(), embeds)
        results.append((out.detach(), [m.tensor.detach() for m in maps.values()], gradient))
    torch.testing.assert_close(results[0], results[1])


def test_stem_runs_once_for_each_latent() -> None:
    backbone = late_attention()
    sizes: list[int] = []
    original = backbone.unet.conv_in._conv_forward

    def counting(x, weight, bias):
        sizes.append(len(x))
        return original(x, weight, bias)

    backbone.unet.conv_in._conv_forward = counting
    latents = torch.randn(1, 4, 8, 8, dtype=torch.float64)
    backbone.denoise(latents, 140, torch.randn(6, NUM_TOKENS, WIDTH).double(), [0] * 6)
    assert sizes == [1]


def test_modules_are_restored_after_an_early_stop_and_after_an_error() -> None:
    backbone = tiny_backbone()
    latents = torch.randn(1, 4, 8, 8)
    with capture(backbone, [0]):
        backbone.denoise(latents, 140, torch.randn(3, NUM_TOKENS, WIDTH), [0, 0, 0])
    with pytest.raises(RuntimeError):
        backbone.denoise(latents, 140, torch.randn(3, NUM_TOKENS, WIDTH + 1), [0, 0, 0])
    assert not any("forward" in module.__dict__ for module in backbone.unet.modules())
