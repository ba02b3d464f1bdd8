"""Pixels compete for a token instead of tokens for a pixel."""

from __future__ import annotations

from torch import Tensor

from diffcorr.attention.base import AttentionRead, AttentionVariant


class SpatialSoftmax(AttentionVariant):
    """Mean over heads of each head's softmax over pixels, scaled to peak 1.

    That is exp(score - largest score) for each token: a head's map is a Gaussian of peak 1 where its
    scores fall with the squared distance, whatever other tokens claim.
    """

    def __repr__(self) -> str:
        return "SpatialSoftmax()"

    def __call__(self, read: AttentionRead) -> Tensor:
        """Values in [0, 1], (B, N) of the wanted token, (B, N, T) of several, or (B, N, M)."""
        several = read.token is None or isinstance(read.token, tuple)
        scores = read.pick(read.scores)
        return (scores - scores.amax(-2 if several else -1, keepdim=True)).exp().mean(1)
