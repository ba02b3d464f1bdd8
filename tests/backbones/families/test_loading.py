"""What every family reads from a folder, and what it refuses."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from diffcorr.attention import capture
from diffcorr.backbones import (
    LatentBackbone,
    PixArtBackbone,
    UNetBackbone,
)
from diffcorr.correspondence import FitConfig, PromptFit
from diffcorr.errors import BackboneError, UnknownNameError
from diffcorr.types import Query
from tests.helpers.families import CLASSES, SHAPE, latents_of
from tests.helpers.fit_reference import image_of


def test_the_folder_picks_the_class(family: str, folder: Path, backbone: LatentBackbone) -> None:
    assert type(backbone) is CLASSES[family]
    assert type(CLASSES[family].from_pretrained(folder)) is CLASSES[family]
    assert not backbone.training
    assert not any(p.requires_grad for p in backbone.parameters())


def test_a_round_trip_through_a_folder(folder: Path, tmp_path: Path) -> None:
    first = LatentBackbone.from_pretrained(folder, image_size=32)
    for part in (first.folder, "vae", *first.text_parts):
        getattr(first, part).save_pretrained(tmp_path / part)
    (tmp_path / "scheduler").symlink_to(folder / "scheduler")
    again = LatentBackbone.from_pretrained(tmp_path, image_size=32)
    assert again.fingerprint == first.fingerprint
    images = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    found = []
    with torch.no_grad():
        for model in (first, again):
            latents = model.encode(images)
            noisy = model.add_noise(latents, torch.ones_like(latents), 300)
            found.append(model.denoise(noisy, 300, model.null_prompt()))
    assert torch.equal(found[0], found[1])


def test_random_weights_have_the_folders_architecture(folder: Path) -> None:
    loaded, built, bare = (
        LatentBackbone.from_pretrained(folder, image_size=32, weights=weights, device=device)
        for weights, device in (("pretrained", "cpu"), ("random", "cpu"), ("random", "meta"))
    )
    shapes = {name: p.shape for name, p in loaded.denoiser.named_parameters()}
    assert {name: p.shape for name, p in built.denoiser.named_parameters()} == shapes
    assert built.fingerprint != loaded.fingerprint
    with torch.no_grad():
        latents = torch.randn(1, *SHAPE)
        assert built.denoise(latents, 140, built.null_prompt()) is not None
    assert bare.device.type == "meta"
    for kind in ("cross", "self"):
        assert bare.layers(kind) == built.layers(kind) == loaded.layers(kind)


def test_another_familys_folder_is_refused(family: str, folder: Path) -> None:
    other = UNetBackbone if family not in ("unet", "sdxl") else PixArtBackbone
    with pytest.raises(BackboneError, match=r"expected a model with .*, found (UNet|Pix|SD3|Flux)"):
        other.from_pretrained(folder)


@pytest.mark.parametrize("offload", ["texts", "layers"])
def test_what_stays_in_main_memory_changes_nothing(family: str, folder: Path, offload: str) -> None:
    """The same maps, gradients and prompts; moving the model leaves what is set apart where it is."""
    plain, small = (
        LatentBackbone.from_pretrained(folder, image_size=32, offload=how) for how in ("none", offload)
    )
    assert small.fingerprint == plain.fingerprint
    found = []
    for model in (plain, small):
        prompts = model.encode_prompt(["a bird", ""])[0].requires_grad_()
        with capture(model, "paper", token=1) as maps:
            model.denoise(latents_of().float(), 140, prompts)
        read = torch.stack([m.tensor.square().sum() for m in maps.values()]).sum()
        found.append((prompts.detach(), read, *torch.autograd.grad(read, prompts), model.null_prompt()))
    torch.testing.assert_close(found[0], found[1])
    if plain.prompt_is_context:  # the start from features solves with the layers' own weights
        queries = [Query("toy", "a", "k", (5.0, 6.0))]
        fit = FitConfig(steps=1, rounds=1, init="features", init_crops=2, layers="paper")
        fitted = []
        for model in (plain, small):
            method = PromptFit(model, fit=fit)
            method.fit(queries, {"a": image_of(0, 48, 40)})
            fitted.append(method.embeddings.get(queries[0].id))
        torch.testing.assert_close(fitted[0], fitted[1])
    weights = [p for name, p in small.denoiser.named_parameters() if name.endswith("weight")]
    assert {p.device.type for p in weights} == {"meta" if offload == "layers" else "cpu"}
    small.to("meta")
    assert {p.device.type for p in small.vae.parameters()} == {"meta"}
    texts = [getattr(small, part) for part in small.text_parts if "encoder" in part]
    assert {p.device.type for text in texts for p in text.parameters()} == {"cpu"}
    with pytest.raises(UnknownNameError, match="unknown offload"):
        LatentBackbone.from_pretrained(folder, offload="disk")


def test_a_text_encoder_without_all_weights_is_refused(family: str, folder: Path, tmp_path: Path) -> None:
    """The library would fill in random ones."""
    shutil.copytree(folder, tmp_path / "model")
    part = next(part for part in CLASSES[family].text_parts if "encoder" in part)
    weights = tmp_path / "model" / part / "model.safetensors"
    tensors = load_file(weights)
    gone = next(name for name in tensors if "layer_norm" in name)
    save_file({name: t for name, t in tensors.items() if name != gone}, weights, {"format": "pt"})
    with pytest.raises(
        BackboneError, match=rf"expected the weights of {part} in .*, found none for .*layer_norm"
    ):
        LatentBackbone.from_pretrained(tmp_path / "model", image_size=32)
