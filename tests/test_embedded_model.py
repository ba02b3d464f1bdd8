"""The model that ships in the package: an ordinary diffusers folder that knows its words."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors.torch import load_file
from transformers import CLIPTokenizer

import diffcorr
from diffcorr.attention.words import word_maps
from diffcorr.backbones import UNetBackbone
from diffcorr.data.image_cache import square
from diffcorr.data.partworld import PartWorldImages, draw_scene
from diffcorr.pretraining.export import sample

FOLDER = Path(diffcorr.__file__).parent / "backbones" / "tiny"


@pytest.fixture(scope="module")
def pipeline():
    made = StableDiffusionPipeline.from_pretrained(FOLDER, safety_checker=None)
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="module")
def tiny():
    return UNetBackbone.from_pretrained("tiny")


def test_folder_is_small_and_holds_no_code():
    files = [p for p in FOLDER.rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) <= 40 * 2**20
    assert max(p.stat().st_size for p in files) <= 15 * 2**20
    assert {p.suffix for p in files} <= {".json", ".safetensors", ".txt", ".md"}


def test_older_files_of_the_tokenizer_say_the_same(tmp_path):
    """transformers 4 reads vocab.json and merges.txt, 5 reads tokenizer.json."""
    for name in ("vocab.json", "merges.txt", "tokenizer_config.json"):
        shutil.copy(FOLDER / "tokenizer" / name, tmp_path)
    captions = [PartWorldImages("test", 8)[i]["caption"] for i in range(8)] + ["Zebra's, 12 x?"]
    old, new = CLIPTokenizer.from_pretrained(tmp_path), CLIPTokenizer.from_pretrained(FOLDER / "tokenizer")
    assert old(captions)["input_ids"] == new(captions)["input_ids"]


def test_weights_have_the_names_of_published_models():
    """transformers 4 leaves a text encoder random whose tensors lack the prefix."""
    names = load_file(FOLDER / "text_encoder" / "model.safetensors")
    assert all(name.startswith("text_model.") for name in names)


def test_attention_at_three_resolutions_and_the_schedule_of_stable_diffusion(tiny):
    for kind in ("self", "cross"):
        assert len({layer.downscale for layer in tiny.layers(kind)}) >= 3
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    assert torch.allclose(tiny.alphas_cumprod, torch.cumprod(1 - betas, 0), atol=1e-5)


@pytest.mark.parametrize("category", ["teapot", "truck", "fish"])
def test_prompts_decide_the_colours(pipeline, category):
    """Of three pictures for each of three colours, the middle has most of the colour that was asked for."""
    caption = f"a flat drawing of a {{}} {category} on white sand and gray sky"
    captions = [caption.format(colour) for colour in ("red", "green", "blue") for _ in range(3)]
    images = np.stack(sample(pipeline, captions, seed=5, steps=12)).astype(float)
    means = images[:, 20:44, 20:44].mean((1, 2))
    excess = (means - means.mean(1, keepdims=True)).reshape(3, 3, 3).mean(1)  # (asked for, channel)
    assert (excess.argmax(0) == range(3)).all(), excess


def test_prompts_decide_the_style(pipeline):
    """A pencil sketch is pale, a flat drawing is not: mean spread of the colour channels, the same noise."""
    rest = "of a red house with blue door on green grass and yellow sky"
    captions = [f"a {style} {rest}" for style in ("pencil sketch", "flat drawing") for _ in range(3)]
    images = np.stack(sample(pipeline, captions, seed=5, steps=10)).astype(float)
    spread = (images.max(-1) - images.min(-1)).mean((1, 2)).reshape(2, 3)
    assert spread[0].max() < spread[1].min()


def test_the_autoencoder_keeps_the_picture(tiny):
    data = PartWorldImages("val", 8)
    pixels = np.stack([square(data[i]["image"], tiny.image_size) for i in range(8)])
    images = torch.as_tensor(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        decoded = tiny.vae.decode(tiny.encode(images) / tiny.vae.config["scaling_factor"]).sample
    mse = ((decoded.clamp(-1, 1) - images) / 2).square().mean()
    assert -10 * torch.log10(mse) > 20


def test_a_word_looks_at_its_thing(tiny):
    """The map of the category's word lies more on the object than elsewhere, over 27 pictures."""
    inside, outside = [], []
    for i in range(27):
        scene = draw_scene((1, 2, 500 + i))
        words, maps = word_maps(tiny, scene.image, scene.caption, num_draws=2)
        field = maps[words.index(scene.category)]
        mask = torch.as_tensor(scene.object_mask[::2, ::2])
        inside.append(float(field[mask].mean() / field.mean()))
        outside.append(float(field[~mask].mean() / field.mean()))
    assert np.mean(inside) > 1.2 * np.mean(outside)
