"""A trained model as an ordinary diffusers folder: safetensors, fp16, in small shards."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel, CLIPTokenizer

from diffcorr.pretraining.diffusion import sd_scheduler
from diffcorr.pretraining.tokenizer import write_vocabulary

PREFIX = "text_model."
"""Of all tensors of a CLIP text encoder in published models."""


def as_pipeline(
    vae: AutoencoderKL, unet: UNet2DConditionModel, text_encoder: CLIPTextModel, tokenizer: CLIPTokenizer
) -> StableDiffusionPipeline:
    """The text-to-image pipeline of these parts (no copies are made)."""
    parts: dict[str, Any] = {
        "vae": vae,
        "unet": unet,
        "text_encoder": text_encoder,
        "tokenizer": tokenizer,
        "scheduler": sd_scheduler(),
        "safety_checker": None,
        "feature_extractor": None,
    }
    pipeline = StableDiffusionPipeline(**parts, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def export(pipeline: StableDiffusionPipeline, folder: str | Path, max_shard_size: str = "15MB") -> None:
    """Write the pipeline in fp16; the parts handed in are left as they were."""
    parts = {
        name: type(part).from_config(part.config) if hasattr(part, "from_config") else type(part)(part.config)
        for name, part in (
            ("vae", pipeline.vae),
            ("unet", pipeline.unet),
            ("text_encoder", pipeline.text_encoder),
        )
    }
    for name, part in parts.items():
        part.load_state_dict(getattr(pipeline, name).state_dict())
        part.to(torch.float16)
    half = as_pipeline(parts["vae"], parts["unet"], parts["text_encoder"], pipeline.tokenizer)
    half.save_pretrained(folder, safe_serialization=True, max_shard_size=max_shard_size)
    _for_every_version(Path(folder))
    # transformers loads a model in the type that its config names, diffusers in fp32: one type for both
    config = Path(folder) / "text_encoder" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"dtype": "float32"}, indent=2) + "\n")


def _for_every_version(folder: Path) -> None:
    """What transformers 5 writes in another way than published models have it, so that 4 reads it too."""
    tokenizer = folder / "tokenizer" / "tokenizer.json"
    if tokenizer.is_file():
        write_vocabulary(json.loads(tokenizer.read_text(encoding="utf-8"))["model"], tokenizer.parent)
    weights = folder / "text_encoder" / "model.safetensors"
    tensors = load_file(weights)
    named = {name if name.startswith(PREFIX) else f"{PREFIX}{name}": t for name, t in tensors.items()}
    save_file(named, weights, {"format": "pt"})


def sample(
    pipeline: StableDiffusionPipeline,
    captions: list[str],
    seed: int = 0,
    steps: int = 30,
    guidance: float = 5.0,
) -> list:
    """Generate one picture for each caption, (S, S, 3) uint8 each; one seed gives the same pictures."""
    size = pipeline.vae.config.sample_size
    generators = [torch.Generator().manual_seed(seed + i) for i in range(len(captions))]
    output = pipeline(
        captions,
        num_inference_steps=steps,
        guidance_scale=guidance,
        generator=generators,
        height=size,
        width=size,
        output_type="np",
    )
    return [(image * 255).round().astype("uint8") for image in output.images]
