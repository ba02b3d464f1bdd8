"""Words among themselves: the start token, which takes most of all attention, is left out."""

from __future__ import annotations

import torch
from torch import Tensor

from diffcorr.attention.base import AttentionRead, AttentionVariant
from diffcorr.errors import DiffcorrError, LayerError


class WordAttention(AttentionVariant):
    """Mean over heads of the probabilities among the tokens from ``first`` on.

    CLIP's start token belongs to no word and takes most of the probability everywhere; a softmax over the
    others makes maps of words comparable (Chefer et al., SIGGRAPH 2023, section 3, re-weigh likewise). For
    the maps of a caption's words (DAAM, Tang et al., ACL 2023), where tokens do mean something; combined
    with several noise levels (``MultiTimestep``) it comes nearest to DAAM.

    Args:
        first: the first token that takes part; those before it get 0. T5 has no start token: 0.

    Raises:
        DiffcorrError: a negative token.
    """

    def __init__(self, first: int = 1) -> None:
        if first < 0:
            raise DiffcorrError(f"expected the first token at least 0, found {first}")
        self.first = first

    def __repr__(self) -> str:
        return f"WordAttention(first={self.first})"

    def __call__(self, read: AttentionRead) -> Tensor:
        """Probabilities in [0, 1], (B, N) of the wanted token, (B, N, T) of several or (B, N, M)."""
        if read.kind == "self":
            return read.pick(read.probs).mean(1)  # pixels have no start token
        wanted = (read.token,) if isinstance(read.token, int) else read.token or ()
        if any(token < self.first for token in wanted):
            raise LayerError(
                f"expected a token from {self.first} on, found {min(wanted)}: lower first, or read another"
            )
        rest = read.scores[..., self.first :].softmax(-1)
        before = rest.new_zeros(*rest.shape[:-1], self.first)
        return read.pick(torch.cat([before, rest], -1)).mean(1)
