"""The maps of the authors' program: only the second half of the heads."""

from __future__ import annotations

from torch import Tensor

from diffcorr.attention.base import AttentionRead, AttentionVariant, mean_over_heads


class ReferenceAttention(AttentionVariant):
    """Mean over the second half of the heads.

    The published program of Hedlin et al. 2023 takes the second half of the batch-and-heads axis,
    which with classifier-free guidance would be the conditional half; it runs without guidance,
    so that heads 4..7 of 8 remain.
    """

    def __repr__(self) -> str:
        return "ReferenceAttention()"

    def __call__(self, read: AttentionRead) -> Tensor:
        """Probabilities in [0, 1], (B, N) of the wanted token or (B, N, M)."""
        num_heads = read.query.shape[1]
        return mean_over_heads(read, range(num_heads // 2, num_heads))
