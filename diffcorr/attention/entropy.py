"""Heads and layers that point somewhere count more than those that look everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from math import log

import torch
from torch import Tensor

from diffcorr.attention.base import AttentionRead, AttentionVariant
from diffcorr.backbones.base import LayerInfo
from diffcorr.errors import DiffcorrError


class EntropyAttention(AttentionVariant):
    """Mean over heads, and over layers, weighted by how sharply each map is peaked.

    The weight is softmax(-H / temperature), H in [0, 1] the entropy of a map that is normalised over the
    pixels, as a fraction of that of a flat map. Entropy measures what attention is focused on (Ghader and
    Monz, IJCNLP 2017); as weights of a map this is this package's own. Nothing is learned, so that it
    suits a model whose heads nobody has looked at. Weights receive no gradient.

    Args:
        temperature: above 0; the smaller, the more the sharpest map counts alone.

    Raises:
        DiffcorrError: a temperature of 0 or less.
    """

    def __init__(self, temperature: float = 0.1) -> None:
        if temperature <= 0:
            raise DiffcorrError(f"expected a temperature above 0, found {temperature}")
        self.temperature = temperature

    def __repr__(self) -> str:
        return f"EntropyAttention(temperature={self.temperature})"

    def __call__(self, read: AttentionRead) -> Tensor:
        """Probabilities in [0, 1], (B, N) of the wanted token, (B, N, T) of several or (B, N, M)."""
        probs = read.pick(read.probs)
        pixels = -1 if read.kind == "self" or probs.ndim == 3 else -2  # a row of self-attention is a map
        return (probs * self._weights(probs, pixels, 1)).sum(1)

    def join(self, maps_BLhw: Tensor, layers: Sequence[LayerInfo]) -> Tensor:
        """Layers weighted likewise, each map (B, L, ..., h, w) by its own entropy."""
        flat = maps_BLhw.flatten(-2)
        return (flat * self._weights(flat, -1, 1)).sum(1).view_as(maps_BLhw[:, 0])

    @torch.no_grad()
    def _weights(self, values: Tensor, pixels: int, over: int) -> Tensor:
        shares = values.clamp(min=0)
        shares = shares / shares.sum(pixels, keepdim=True).clamp(min=torch.finfo(shares.dtype).tiny)
        entropy = -torch.xlogy(shares, shares).sum(pixels, keepdim=True)
        return (-entropy / log(max(2, values.shape[pixels])) / self.temperature).softmax(over)
