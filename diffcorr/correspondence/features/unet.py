"""Features of the frozen diffusion model: one up block of its U-Net (Tang et al., NeurIPS 2023)."""

from __future__ import annotations

import torch
from torch import Tensor

from diffcorr.backbones.base import Backbone
from diffcorr.correspondence.draws import SeededDraws
from diffcorr.correspondence.features.base import FeatureSource
from diffcorr.data.geometry import frame, image_size, image_to_tensor
from diffcorr.types import UInt8Image


class UNetFeatures(FeatureSource):
    """Output of an up block, averaged over noise draws (DIFT, arXiv 2306.03881, section 4.1).

    The defaults are those of the paper for Stable Diffusion 2.1.

    Args:
        backbone: frozen.
        block: up block, 0 = the lowest resolution.
        timestep: noise level, 0..999.
        ensemble: noise draws that are averaged.
        prompt: text; ``{category}`` is replaced by the pair's.
        seed: of the noise, together with the image.
        cache_size: images whose features are kept.
    """

    def __init__(
        self,
        backbone: Backbone,
        block: int = 1,
        timestep: int = 261,
        ensemble: int = 8,
        prompt: str = "",
        seed: int = 0,
        cache_size: int = 32,
    ) -> None:
        super().__init__(backbone.image_size, prompt, cache_size)
        self.backbone, self.block, self.timestep, self.ensemble = backbone, block, timestep, ensemble
        self.seed = seed

    def compute(self, image: UInt8Image, key: str, prompt: str) -> Tensor:
        """Features of one image."""
        backbone = self.backbone
        pixels = image_to_tensor(image, frame(image_size(image), self.side))
        latent = backbone.encode(pixels[None])
        draws = SeededDraws("dift", self.seed, key)
        noise = torch.stack(
            [draws.noise(i, tuple(latent.shape[1:]), "gaussian") for i in range(self.ensemble)]
        )
        noisy = backbone.add_noise(latent.expand(self.ensemble, -1, -1, -1), noise.to(latent), self.timestep)
        embeds = backbone.encode_prompt([prompt])[0] if prompt else backbone.null_prompt()
        return backbone.features(noisy, self.timestep, embeds, self.block).float().mean(0)
