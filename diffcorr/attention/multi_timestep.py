"""Several noise levels: what a single one hides, the mean of their maps shows."""

from __future__ import annotations

from collections.abc import Sequence

from diffcorr.attention.base import AttentionVariant
from diffcorr.attention.wrapper import Wrapper
from diffcorr.errors import DiffcorrError


class MultiTimestep(Wrapper):
    """Mean of the maps at several noise levels, each with the same noise.

    DAAM (Tang et al., ACL 2023, section 3.1) sums a word's maps over all steps of the denoising; a real
    image can be noised to any of them at once. Low levels place a map sharply, high ones find what an
    object is at all. Costs one pass for each level, in the fit as in the reading.

    Args:
        timesteps: noise levels, 0..999; they take the place of the reader's own.
        of: what reads each of them; None = the mean over heads.

    Raises:
        DiffcorrError: no levels, the same twice, or one out of range.
    """

    def __init__(self, timesteps: Sequence[int], of: AttentionVariant | None = None) -> None:
        super().__init__(of)
        levels = tuple(int(t) for t in timesteps)
        if not levels or len(set(levels)) < len(levels) or not all(0 <= t < 1000 for t in levels):
            raise DiffcorrError(f"expected different timesteps in 0..999, found {list(levels)}: name others")
        self.timesteps = levels

    def __repr__(self) -> str:
        return f"MultiTimestep(timesteps={self.timesteps}, of={self.of!r})"
