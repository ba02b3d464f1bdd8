"""The paper's maps: the mean of the probabilities over all heads, or over chosen ones."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from diffcorr.attention.base import AttentionRead, AttentionVariant, mean_over_heads


class MeanAttention(AttentionVariant):
    """Mean over heads (Hedlin et al. 2023, equation 3; Tian et al. 2024, section 3.2).

    Args:
        heads: which heads; None = all.
    """

    def __init__(self, heads: Sequence[int] | None = None) -> None:
        self.heads = None if heads is None else tuple(heads)

    def __repr__(self) -> str:
        return f"MeanAttention(heads={self.heads})"

    def __call__(self, read: AttentionRead) -> Tensor:
        """Probabilities in [0, 1], (B, N) of the wanted token or (B, N, M)."""
        heads = range(read.query.shape[1]) if self.heads is None else self.heads
        return mean_over_heads(read, heads)
