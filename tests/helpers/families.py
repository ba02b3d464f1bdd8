"""The families of backbones at toy size: their classes, and noise and prompts to run them on."""

import torch
from torch import Tensor

from diffcorr.backbones import (
    FluxBackbone,
    LatentBackbone,
    PixArtBackbone,
    SD3Backbone,
    SDXLBackbone,
    UNetBackbone,
)

CLASSES = {
    "unet": UNetBackbone,
    "sdxl": SDXLBackbone,
    "pixart": PixArtBackbone,
    "sd3": SD3Backbone,
    "sd35": SD3Backbone,
    "flux": FluxBackbone,
    "flux_schnell": FluxBackbone,
}
JOINT = ("sd3", "sd35", "flux", "flux_schnell")
SHAPE = (4, 8, 12)


def latents_of(count: int = 2, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, *SHAPE, generator=generator, dtype=torch.float64)


def prompts_of(backbone: LatentBackbone, count: int = 2) -> Tensor:
    shape = (count, *backbone.embedding_shape)
    return torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
