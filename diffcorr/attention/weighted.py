"""Weights of heads and layers that were learned on a validation split."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from diffcorr.attention.base import AttentionRead, AttentionVariant
from diffcorr.backbones.base import LayerInfo
from diffcorr.errors import DiffcorrError, LayerError


class WeightedAttention(AttentionVariant):
    """Weighted mean over heads, and over layers.

    ``eval.py task=diagnosis`` finds weights for a fitted set: non-negative least squares between the heads'
    maps of a validation split and the Gaussian at the true point (the fit's own loss, Hedlin et al. 2023,
    equation 4, with the weights as its unknowns). They hold for one model.

    Args:
        weights: of each layer, by its full name, the weights of its heads, 0 or more; or the
            ``weights.json`` of a diagnosis. Their size counts against other layers: a layer weighs as much
            as its heads together. Layers that are not named are read as the mean over heads, and weigh as
            much as the named do on average.

    Raises:
        DiffcorrError: a negative weight, only zeros, or a file that has none.
    """

    def __init__(self, weights: Mapping[str, Sequence[float]] | str | None = None) -> None:
        if isinstance(weights, str):
            weights = _read(weights)
        self.weights = {str(name): tuple(map(float, heads)) for name, heads in (weights or {}).items()}
        for name, heads in self.weights.items():
            if not heads or min(heads) < 0:
                raise DiffcorrError(f"expected weights of 0 or more for the heads of {name}, found {heads}")
        if self.weights and not any(map(sum, self.weights.values())):
            raise DiffcorrError("expected a weight above 0, found none: leave weights out for the plain mean")

    def __repr__(self) -> str:
        return f"WeightedAttention(weights={self.weights})"

    def __call__(self, read: AttentionRead) -> Tensor:
        """Probabilities in [0, 1], (B, N) of the wanted token, (B, N, T) of several or (B, N, M)."""
        probs = read.pick(read.probs)
        heads = self.weights.get(read.layer.name) if read.layer is not None else None
        if heads is None or not sum(heads):
            return probs.mean(1)
        if len(heads) != probs.shape[1]:
            name = read.layer.name if read.layer else ""
            raise LayerError(f"expected {probs.shape[1]} weights for the heads of {name}, found {len(heads)}")
        shares = torch.tensor(heads).to(probs) / sum(heads)
        return torch.einsum("bc...,c->b...", probs, shares)

    def join(self, maps_BLhw: Tensor, layers: Sequence[LayerInfo]) -> Tensor:
        """Layers weighted by the sum of their heads' weights."""
        sums = [sum(heads) for heads in self.weights.values()]
        others = sum(sums) / len(sums) if sums else 1.0
        wanted = [sum(self.weights[la.name]) if la.name in self.weights else others for la in layers]
        if not sum(wanted):
            raise LayerError(
                f"expected a layer with a weight above 0, found {[la.name for la in layers]}: read others"
            )
        shares = torch.tensor(wanted).to(maps_BLhw) / sum(wanted)
        return torch.einsum("bl...,l->b...", maps_BLhw, shares)


def _read(path: str) -> dict[str, list[float]]:
    try:
        weights: dict[str, list[float]] = json.loads(Path(path).read_text(encoding="utf-8"))["weights"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DiffcorrError(
            f"expected the weights.json that eval.py task=diagnosis writes, found none in {path!r}: name it"
        ) from error
    return weights
