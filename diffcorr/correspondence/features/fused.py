"""Features of two sources side by side: "A Tale of Two Features" (Zhang et al., NeurIPS 2023)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from diffcorr.correspondence.features.base import FeatureSource
from diffcorr.errors import DiffcorrError
from diffcorr.types import UInt8Image


class FusedFeatures(FeatureSource):
    """(w f1 / |f1|, (1 - w) f2 / |f2|), both resized to one grid (arXiv 2305.15347, section 3.3).

    The cosine of two fused features is the mean of the sources' cosines, weighted by w^2 and (1 - w)^2,
    as far as the resize does not mix cells. The published program joins several U-Net layers, reduced by
    a PCA that the two images share, and letterboxes images; here each source is taken as it comes.

    Args:
        first, second: the sources; the larger ``side`` counts as the fused one's.
        weight: w of the first, 0..1.
        grid: cells along each side; None = those of the first.
        cache_size: images whose features are kept.

    Raises:
        DiffcorrError: a weight or a grid out of range.
    """

    def __init__(
        self,
        first: FeatureSource,
        second: FeatureSource,
        weight: float = 0.5,
        grid: int | None = None,
        cache_size: int = 32,
    ) -> None:
        if not 0 <= weight <= 1:
            raise DiffcorrError(f"expected a weight of the first features in 0..1, found {weight}")
        if grid is not None and grid < 1:
            raise DiffcorrError(f"expected a grid of at least 1 cell, found {grid}: or null, the first's")
        prompt = "{category}" if first.uses_category or second.uses_category else ""  # handed on
        super().__init__(max(first.side, second.side), prompt, cache_size)
        self.first, self.second, self.weight, self.grid = first, second, weight, grid

    def compute(self, image: UInt8Image, key: str, prompt: str) -> Tensor:
        """Features of one image; ``prompt`` is its category, where a source uses it."""
        first, second = (
            F.normalize(source(image, key, prompt), dim=0) for source in (self.first, self.second)
        )
        size = (self.grid, self.grid) if self.grid else tuple(first.shape[1:])
        parts = [self.weight * _resized(first, size), (1 - self.weight) * _resized(second, size)]
        return torch.cat([part.to(first) for part in parts])


def _resized(features_Dhw: Tensor, size: tuple[int, ...]) -> Tensor:
    if tuple(features_Dhw.shape[1:]) == size:
        return features_Dhw
    return F.interpolate(features_Dhw[None], size=size, mode="bilinear", antialias=True)[0]
