"""Cross-attention spread along self-attention: what a pixel finds, pixels that look at it find too."""

from __future__ import annotations

import torch
from torch import Tensor

from diffcorr.attention.base import AttentionRead, AttentionVariant, mean_over_heads
from diffcorr.attention.wrapper import Wrapper
from diffcorr.errors import DiffcorrError, LayerError


class SelfRefined(Wrapper):
    """S^k A: the map A of a variant, k times averaged over where each pixel's self-attention S goes.

    S is the mean over heads of the self-attention in the same block; its rows sum to 1, so that bounds stay.
    Fills the holes of a map inside of an object and removes specks outside (Wang et al. 2023, arXiv
    2309.02773, section 3.3, multiply a word's map by self-attention likewise); of a point it takes sharpness.

    Args:
        power: k, how many times.
        of: what reads the map; None = the mean over heads.

    Raises:
        DiffcorrError: a power below 1.
    """

    def __init__(self, power: int = 1, of: AttentionVariant | None = None) -> None:
        super().__init__(of)
        if power < 1:
            raise DiffcorrError(f"expected power at least 1, found {power}")
        self.power = power
        self.needs_self = True

    def __repr__(self) -> str:
        return f"SelfRefined(power={self.power}, of={self.of!r})"

    def __call__(self, read: AttentionRead) -> Tensor:
        """The spread map, in the shape of the variant's own."""
        found = self.of(read)
        around = read.around
        if around is None:
            raise LayerError(
                "expected self-attention beside cross-attention, found none: read with capture()"
            )
        spread = mean_over_heads(around, range(around.query.shape[1]))
        if read.rows is not None:
            spread = spread[list(read.rows)]
        columns = found if found.ndim == 3 else found[..., None]
        with torch.autocast(found.device.type, enabled=False):
            for _ in range(self.power):
                columns = spread @ columns
        return columns if found.ndim == 3 else columns[..., 0]
