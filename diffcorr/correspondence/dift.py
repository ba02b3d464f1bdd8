"""Nearest neighbour on U-Net features: DIFT (Tang et al., NeurIPS 2023, arXiv 2306.03881)."""

from __future__ import annotations

from diffcorr.backbones.base import Backbone
from diffcorr.correspondence.features.unet import UNetFeatures
from diffcorr.correspondence.nearest import NearestNeighbour


class DIFT(NearestNeighbour):
    """The target pixel whose U-Net feature has the largest cosine with the query's.

    Args:
        backbone: frozen.
        block, timestep, ensemble, prompt, seed, cache_size: see `UNetFeatures`.
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
        features = UNetFeatures(backbone, block, timestep, ensemble, prompt, seed, cache_size)
        super().__init__(features, "dift")
