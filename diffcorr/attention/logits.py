"""Scores before the softmax: what a token claims, whatever the others claim."""

from __future__ import annotations

from torch import Tensor

from diffcorr.attention.base import AttentionRead, AttentionVariant


class Logits(AttentionVariant):
    """Mean over heads of the scaled scores (Hedlin et al. 2023, equation 2, before the softmax).

    Tokens do not compete, so that a map does not change with what else stands in the prompt. Values
    know no bounds, and a constant that is added to all of them changes nothing in the model.
    """

    bounded = False

    def __repr__(self) -> str:
        return "Logits()"

    def __call__(self, read: AttentionRead) -> Tensor:
        """Scores, (B, N) of the wanted token, (B, N, T) of several, or (B, N, M)."""
        return read.pick(read.scores).mean(1)
