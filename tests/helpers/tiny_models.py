"""Real diffusers and transformers classes at toy size with random weights, never fakes."""

from __future__ import annotations

import functools
import json
import shutil
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxTransformer2DModel,
    PixArtTransformer2DModel,
    SD3Transformer2DModel,
    UNet2DConditionModel,
)
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

from diffcorr.backbones import UNetBackbone

IMAGE_SIZE = 32
NUM_TOKENS = 8
WIDTH = 16
POOLED = 12


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


def tiny_sdxl_unet(seed: int = 0) -> UNet2DConditionModel:
    """As in SDXL: no attention at the finest resolution, two layers in each block, a pooled text, a size."""
    torch.manual_seed(seed)
    return UNet2DConditionModel(
        sample_size=8,
        layers_per_block=1,
        block_out_channels=(16, 32),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2),
        cross_attention_dim=2 * WIDTH,
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        norm_num_groups=4,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=POOLED + 6 * 8,
    )


def tiny_pixart(seed: int = 0, **changes: object) -> PixArtTransformer2DModel:
    torch.manual_seed(seed)
    config = {
        "sample_size": 8,
        "num_layers": 2,
        "num_attention_heads": 2,
        "attention_head_dim": 8,
        "cross_attention_dim": 16,
        "caption_channels": WIDTH,
        "use_additional_conditions": False,
    }
    return PixArtTransformer2DModel(**config | changes)


def tiny_sd3(seed: int = 0, **changes: object) -> SD3Transformer2DModel:
    torch.manual_seed(seed)
    config = {
        "sample_size": 8,
        "in_channels": 4,
        "out_channels": 4,
        "num_layers": 3,
        "num_attention_heads": 2,
        "attention_head_dim": 8,
        "joint_attention_dim": 3 * WIDTH,
        "caption_projection_dim": 16,
        "pooled_projection_dim": 2 * POOLED,
        "pos_embed_max_size": 12,
    }
    return SD3Transformer2DModel(**config | changes)


def tiny_sd35(seed: int = 0) -> SD3Transformer2DModel:
    """As in SD 3.5 medium: normed queries and keys, and attention of the image alone in the first layers."""
    return tiny_sd3(seed, qk_norm="rms_norm", dual_attention_layers=(0, 1))


def tiny_flux(seed: int = 0, guidance_embeds: bool = True) -> FluxTransformer2DModel:
    torch.manual_seed(seed)
    return FluxTransformer2DModel(
        in_channels=16,
        num_layers=2,
        num_single_layers=2,
        num_attention_heads=2,
        attention_head_dim=8,
        joint_attention_dim=WIDTH,
        pooled_projection_dim=WIDTH,
        axes_dims_rope=(2, 2, 4),
        guidance_embeds=guidance_embeds,
    )


DENOISERS = {
    "unet": tiny_unet,
    "sdxl": tiny_sdxl_unet,
    "pixart": tiny_pixart,
    "sd3": tiny_sd3,
    "sd35": tiny_sd35,
    "flux": tiny_flux,
    "flux_schnell": functools.partial(tiny_flux, guidance_embeds=False),
}
"""A tiny denoiser of every family."""


TEXTS = {
    "sdxl": ({"": CLIPTextModel, "_2": CLIPTextModelWithProjection}, None),
    "pixart": ({}, ""),
    "sd3": ({"": CLIPTextModelWithProjection, "_2": CLIPTextModelWithProjection}, "_3"),
    "flux": ({"": CLIPTextModel}, "_2"),
}
"""CLIP's models by the suffix of their folder, and the suffix of T5's."""


def save_tiny_family(folder: Path, family: str) -> Path:
    """A diffusers folder of that family with all parts that its pipeline has."""
    plain = save_tiny_pipeline(folder)
    if family == "unet":
        return plain
    clips, t5 = TEXTS[{"sd35": "sd3", "flux_schnell": "flux"}.get(family, family)]
    config = CLIPTextConfig.from_pretrained(
        plain / "text_encoder", num_hidden_layers=2, projection_dim=POOLED
    )
    tokenizer = CLIPTokenizer.from_pretrained(plain / "tokenizer")
    for part in ("unet", "text_encoder", "tokenizer"):
        shutil.rmtree(folder / part)
    DENOISERS[family]().save_pretrained(folder / ("unet" if family == "sdxl" else "transformer"))
    if family.startswith(("sd3", "flux")):
        FlowMatchEulerDiscreteScheduler().save_pretrained(folder / "scheduler")
    for seed, (suffix, model) in enumerate(clips.items(), start=2):
        torch.manual_seed(seed)
        model(config).save_pretrained(folder / f"text_encoder{suffix}")
        tokenizer.save_pretrained(folder / f"tokenizer{suffix}")
    if t5 is not None:
        _save_t5(folder, t5, 3 * WIDTH if family.startswith("sd3") else WIDTH)
    return folder


def _save_t5(folder: Path, suffix: str, width: int) -> None:
    words = ["<pad>", "</s>", "<unk>", "▁", *"abcdefghijklmnopqrstuvwxyz", "▁red"]
    bare = Tokenizer(models.Unigram([(word, -float(i)) for i, word in enumerate(words)], unk_id=2))
    bare.pre_tokenizer = pre_tokenizers.Metaspace()
    bare.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    PreTrainedTokenizerFast(
        tokenizer_object=bare,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=NUM_TOKENS,
    ).save_pretrained(folder / f"tokenizer{suffix}")
    torch.manual_seed(5)
    config = T5Config(
        vocab_size=len(words), d_model=width, d_kv=8, d_ff=32, num_layers=2, num_heads=2, pad_token_id=0
    )
    T5EncoderModel(config).save_pretrained(folder / f"text_encoder{suffix}")
