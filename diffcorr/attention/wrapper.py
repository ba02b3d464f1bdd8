"""What changes another variant instead of reading by itself."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from diffcorr.attention.base import AttentionRead, AttentionVariant
from diffcorr.attention.mean import MeanAttention
from diffcorr.backbones.base import LayerInfo


class Wrapper(AttentionVariant):
    """Does what ``of`` does; a subclass overrides what it changes, so that variants can be combined.

    Args:
        of: the variant that is changed; None = the mean over heads.
    """

    def __init__(self, of: AttentionVariant | None = None) -> None:
        self.of = of or MeanAttention()
        self.bounded, self.needs_self = self.of.bounded, self.of.needs_self
        self.timesteps = self.of.timesteps

    def __call__(self, read: AttentionRead) -> Tensor:
        """What ``of`` makes of it."""
        return self.of(read)

    def join(self, maps_BLhw: Tensor, layers: Sequence[LayerInfo]) -> Tensor:
        """As ``of`` joins them."""
        return self.of.join(maps_BLhw, layers)
