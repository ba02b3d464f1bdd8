"""Families against the library's own pipelines and processors."""

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import (
    DiffusionPipeline,
    FluxPipeline,
    PixArtAlphaPipeline,
    StableDiffusion3Pipeline,
    StableDiffusionXLPipeline,
)
from diffusers.models.attention_processor import JointAttnProcessor2_0

from diffcorr.backbones import FluxBackbone, LatentBackbone, PixArtBackbone, SD3Backbone, SDXLBackbone
from diffcorr.backbones.catalog import CATALOG
from tests.helpers.tiny_models import (
    DENOISERS,
    NUM_TOKENS,
    save_tiny_family,
    tiny_flux,
    tiny_pixart,
    tiny_scheduler,
    tiny_vae,
)


@pytest.fixture(scope="module")
def load(tmp_path_factory: pytest.TempPathFactory) -> Any:
    made: dict[str, LatentBackbone] = {}

    def get(family: str) -> Any:
        if family not in made:
            folder = save_tiny_family(tmp_path_factory.mktemp(family), family)
            made[family] = LatentBackbone.from_pretrained(folder, image_size=32)
        return made[family]

    return get


def pipeline_of(kind: type[DiffusionPipeline], backbone: LatentBackbone, **more: Any) -> Any:
    parts = {name: getattr(backbone, name) for name in (backbone.folder, "vae", *backbone.text_parts)}
    return kind(**parts, scheduler=tiny_scheduler(), **more)


def latents_of(channels: int = 4) -> torch.Tensor:
    return torch.randn(2, channels, 8, 12, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("family", ["sd3", "sd35"])
def test_sd3_is_the_librarys(family: str, load: Any) -> None:
    backbone: SD3Backbone = load(family)
    pipeline = pipeline_of(StableDiffusion3Pipeline, backbone)
    embeds, _, pooled, _ = pipeline.encode_prompt(
        "red cat", None, None, do_classifier_free_guidance=False, max_sequence_length=NUM_TOKENS
    )
    _, _, empty, _ = pipeline.encode_prompt("", None, None, do_classifier_free_guidance=False)
    found, _ = backbone.encode_prompt(["red cat"])
    torch.testing.assert_close(found, embeds)
    torch.testing.assert_close(backbone.pooled(), empty)
    assert not torch.allclose(pooled, empty)
    theirs = DENOISERS[family]()
    for module in theirs.modules():
        if hasattr(module, "to_q"):
            module.set_processor(JointAttnProcessor2_0())
    times = torch.full((2,), 1000 * backbone.sigma(140))
    with torch.no_grad():
        expected = theirs(latents_of(), embeds.expand(2, -1, -1), empty.expand(2, -1), times).sample
        torch.testing.assert_close(backbone.denoise(latents_of(), 140, embeds), expected)


@pytest.mark.parametrize("family", ["flux", "flux_schnell"])
def test_flux_is_the_librarys(family: str, load: Any) -> None:
    backbone: FluxBackbone = load(family)
    pipeline = pipeline_of(FluxPipeline, backbone)
    embeds, _, text_ids = pipeline.encode_prompt("red cat", None, max_sequence_length=NUM_TOKENS)
    _, empty, _ = pipeline.encode_prompt("", None, max_sequence_length=NUM_TOKENS)
    torch.testing.assert_close(backbone.encode_prompt(["red cat"])[0], embeds)
    torch.testing.assert_close(backbone.pooled(), empty)
    theirs = tiny_flux(guidance_embeds=family == "flux")  # with its own processors
    packed = FluxPipeline._pack_latents(latents_of(), 2, 4, 8, 12)
    with torch.no_grad():
        expected = theirs(
            hidden_states=packed,
            encoder_hidden_states=embeds.expand(2, -1, -1),
            pooled_projections=empty.expand(2, -1),
            timestep=torch.full((2,), backbone.sigma(140)),
            img_ids=FluxPipeline._prepare_latent_image_ids(2, 4, 6, "cpu", torch.float32),
            txt_ids=text_ids,
            guidance=torch.full((2,), 3.5) if family == "flux" else None,
        ).sample
        expected = FluxPipeline._unpack_latents(expected, 8 * 4, 12 * 4, 4)
        torch.testing.assert_close(backbone.denoise(latents_of(), 140, embeds), expected)


def test_sdxl_is_the_librarys(load: Any) -> None:
    backbone: SDXLBackbone = load("sdxl")
    pipeline = pipeline_of(StableDiffusionXLPipeline, backbone)
    embeds, _, pooled, _ = pipeline.encode_prompt("red cat", do_classifier_free_guidance=False)
    _, _, empty, _ = pipeline.encode_prompt("", do_classifier_free_guidance=False)
    torch.testing.assert_close(backbone.encode_prompt(["red cat"])[0], embeds)
    torch.testing.assert_close(backbone.pooled(), empty)
    assert not torch.allclose(pooled, empty)
    sizes = pipeline._get_add_time_ids((32, 48), (0, 0), (32, 48), torch.float32, backbone.pooled_width)
    added = {"text_embeds": empty.expand(2, -1), "time_ids": sizes.expand(2, -1)}
    with torch.no_grad():
        expected = DENOISERS["sdxl"]()(
            latents_of(), 140, embeds.expand(2, -1, -1), added_cond_kwargs=added
        ).sample
        torch.testing.assert_close(backbone.denoise(latents_of(), 140, embeds), expected)


def test_pixart_with_an_empty_prompt_is_the_librarys_with_its_mask(load: Any) -> None:
    backbone: PixArtBackbone = load("pixart")
    pipeline = pipeline_of(PixArtAlphaPipeline, backbone)
    embeds, mask, _, _ = pipeline.encode_prompt(
        "", do_classifier_free_guidance=False, max_sequence_length=NUM_TOKENS
    )
    assert mask.sum() == 1
    with torch.no_grad():
        expected = tiny_pixart()(
            latents_of(),
            embeds.expand(2, -1, -1),
            torch.tensor([140, 140]),
            encoder_attention_mask=mask.expand(2, -1).float(),
        ).sample
        found = backbone.denoise(latents_of(), 140, backbone.null_prompt())
    torch.testing.assert_close(found, expected)


def test_pixart_is_told_its_size() -> None:
    config = {"use_additional_conditions": True, "attention_head_dim": 12, "cross_attention_dim": 24}
    theirs = tiny_pixart(**config)
    backbone = PixArtBackbone(tiny_pixart(**config), tiny_vae(), tiny_scheduler())
    prompts = torch.randn(2, 120, 16)
    sizes = {"resolution": torch.tensor([[32.0, 48.0]] * 2), "aspect_ratio": torch.tensor([[32 / 48]] * 2)}
    with torch.no_grad():
        expected = theirs(latents_of(), prompts, torch.tensor([7, 7]), added_cond_kwargs=sizes).sample
        torch.testing.assert_close(backbone.denoise(latents_of(), 7, prompts), expected)


def test_sd3_without_t5(load: Any, tmp_path: Path) -> None:
    """As in the library, T5's tokens are zeros."""
    whole: SD3Backbone = load("sd3")
    parts = {part: getattr(whole, part) for part in list(whole.text_parts)[:4]}
    without = SD3Backbone(whole.transformer, whole.vae, tiny_scheduler(), **parts)
    assert without.embedding_shape == (NUM_TOKENS + 256, 48)
    embeds, tokens = without.encode_prompt(["red cat"])
    torch.testing.assert_close(embeds[:, :NUM_TOKENS], whole.encode_prompt(["red cat"])[0][:, :NUM_TOKENS])
    assert embeds[:, NUM_TOKENS:].abs().max() == 0
    assert len(tokens[0]) == NUM_TOKENS + 256


def test_noise_of_flow_matching(load: Any) -> None:
    backbone: FluxBackbone = load("flux")
    latents, noise = torch.randn(2, 1, 4, 8, 8)
    sigma = backbone.sigma(140)
    assert sigma == pytest.approx(0.30244, abs=1e-5)
    torch.testing.assert_close(backbone.add_noise(latents, noise, 140), (1 - sigma) * latents + sigma * noise)


@pytest.mark.parametrize(
    ("name", "num_parameters"),
    [
        ("sdxl", 2_567_463_684),
        ("pixart_alpha", 611_349_152),
        ("sd3", 2_028_328_000),
        ("sd35_medium", 2_243_171_520),
        ("sd35_large", 8_056_627_520),
        ("flux_dev", 11_901_408_320),
    ],
)
def test_catalog_has_the_true_architectures(name: str, num_parameters: int) -> None:
    """Sizes of the published denoisers; built without memory."""
    family = LatentBackbone.family_of(CATALOG[name].denoiser)
    with torch.device("meta"):
        denoiser = family.model_class.from_config(CATALOG[name].denoiser)
    assert sum(p.numel() for p in denoiser.parameters()) == num_parameters
