"""Real diffusers and transformers classes at toy size with random weights, never fakes."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from diffcorr.backbones import UNetBackbone

IMAGE_SIZE = 32
NUM_TOKENS = 8
WIDTH = 16


def tiny_unet(seed: int = 0) -> UNet2DConditionModel:
    """Cross-attention at 8, 4, 4, 4 4 8 8: six layers, index 0..6 with the mid block's."""
    torch.manual_seed(seed)
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(16, 32),
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=4,
    )


def tiny_vae(seed: int = 1) -> AutoencoderKL:
    """Latents of 4 channels, a quarter of the image's side."""
    torch.manual_seed(seed)
    return AutoencoderKL(
        block_out_channels=(8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=IMAGE_SIZE,
    )


def tiny_scheduler() -> DDIMScheduler:
    return DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")


def tiny_backbone(dtype: torch.dtype = torch.float32, seed: int = 0) -> UNetBackbone:
    """A backbone without text encoder; the embedding scale of its keys is enlarged.

    Random weights give nearly flat attention; steeper keys make maps that a test can tell apart.
    """
    backbone = UNetBackbone(tiny_unet(seed), tiny_vae(seed + 1), tiny_scheduler(), name="toy")
    backbone.embedding_shape = (NUM_TOKENS, WIDTH)
    with torch.no_grad():
        for name, module in backbone.attention_modules().items():
            if name.endswith("attn2"):
                module.to_k.weight.mul_(8)
    return backbone.to(dtype)


def save_tiny_pipeline(folder: Path) -> Path:
    """An ordinary Stable Diffusion folder with all parts."""
    tiny_unet().save_pretrained(folder / "unet")
    tiny_vae().save_pretrained(folder / "vae")
    tiny_scheduler().save_pretrained(folder / "scheduler")
    words = ["<|startoftext|>", "<|endoftext|>", *"abcdefghijklmnopqrstuvwxyz"]
    words += [f"{letter}</w>" for letter in "abcdefghijklmnopqrstuvwxyz"] + ["re", "red</w>"]
    vocabulary = folder / "vocab.json"
    vocabulary.write_text(json.dumps({word: i for i, word in enumerate(words)}))
    merges = folder / "merges.txt"
    merges.write_text("#version: 0.2\nr e\nre d</w>\n")
    CLIPTokenizer(str(vocabulary), str(merges), model_max_length=NUM_TOKENS).save_pretrained(
        folder / "tokenizer"
    )
    torch.manual_seed(2)
    config = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=WIDTH,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=NUM_TOKENS,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    CLIPTextModel(config).save_pretrained(folder / "text_encoder")
    return folder
