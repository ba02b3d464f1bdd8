"""Fusing self-attention of several resolutions into one affinity graph.

DiffSeg (Tian et al., CVPR 2024), section 3.1, equation 1: the map of every query position is upsampled to
the finest grid, normalised to sum 1, repeated over the query positions that a coarse one covers, and
averaged over resolutions with weights proportional to their side.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from diffcorr.errors import LayerError


def mean_by_side(maps: Iterable[Tensor]) -> dict[int, Tensor]:
    """Average the layers of each resolution.

    Args:
        maps: one tensor per layer, (B, hw, hw) with hw a square number: attention of the query position
            (rows) over the key positions (columns), heads already averaged.

    Returns:
        side -> (B, side*side, side*side), sides in descending order.

    Raises:
        LayerError: there is no map, or one is not square.
    """
    total: dict[int, Tensor] = {}
    count: dict[int, int] = {}
    for layer in maps:
        side = _side(layer)
        total[side] = total[side] + layer if side in total else layer
        count[side] = count.get(side, 0) + 1
    if not total:
        raise LayerError("expected self-attention maps, found none; name layers that have self-attention")
    return {side: total[side] / count[side] for side in sorted(total, reverse=True)}


def aggregate(
    maps: Mapping[int, Tensor],
    *,
    side: int | None = None,
    weights: Mapping[int, float] | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Fuse one map tensor per resolution into the affinity graph A (DiffSeg, equation 1).

    Args:
        maps: side -> (B, side*side, side*side), non-negative, any set of sides.
        side: side of the graph's grid; by default the largest side in `maps`.
        weights: side -> relative weight; by default the side itself.
        dtype: float type of the result and of the sums.

    Returns:
        (B, hw, hw) with hw = side*side: every row is a distribution over positions, it sums to 1.

    Raises:
        LayerError: no maps, a map of another shape, a side beyond `side`, no weight for a side, or a map
            that is no distribution (not finite, negative, or zero everywhere).
    """
    if not maps:
        raise LayerError("expected self-attention maps, found none; name layers that have self-attention")
    side = max(maps) if side is None else side
    weights = {s: float(s) for s in maps} if weights is None else weights
    if missing := [s for s in maps if weights.get(s, 0) <= 0]:
        raise LayerError(f"expected a positive weight for every resolution, found none for {missing}")
    if max(maps) > side:
        raise LayerError(f"maps of side {max(maps)} do not fit a graph of side {side}; raise the side")
    weight_sum = sum(weights[s] for s in maps)

    graph: Tensor | None = None
    for own_side, layer in maps.items():
        if _side(layer) != own_side:
            raise LayerError(f"expected maps of side {own_side}, found shape {tuple(layer.shape)}")
        fused = _upsample_keys(layer.to(dtype), own_side, side)
        sums = fused.sum(-1, keepdim=True)
        if not (bool(torch.isfinite(sums).all()) and bool((sums > 0).all()) and float(fused.min()) >= 0):
            raise LayerError(
                f"attention of side {own_side} is no distribution (NaN, negative or zero everywhere); "
                "run the backbone in a wider float type"
            )
        fused = fused * (weights[own_side] / weight_sum / sums)
        fused = _repeat_queries(fused, own_side, side)
        graph = fused if graph is None else graph.add_(fused)
    assert graph is not None
    return graph


def _side(layer: Tensor) -> int:
    positions = layer.shape[-1]
    side = math.isqrt(positions)
    if layer.ndim != 3 or layer.shape[-2] != positions or side * side != positions:
        raise LayerError(f"expected square self-attention (B, hw, hw), found shape {tuple(layer.shape)}")
    return side


def _upsample_keys(layer: Tensor, own_side: int, side: int) -> Tensor:
    if own_side == side:
        return layer
    keys = layer.unflatten(-1, (own_side, own_side))
    return F.interpolate(keys, size=(side, side), mode="bilinear", align_corners=False).flatten(-2)


def _repeat_queries(layer: Tensor, own_side: int, side: int) -> Tensor:
    if own_side == side:
        return layer
    # nearest coarse cell; for an integer ratio this is the plain repetition of the paper
    rows = torch.arange(side, device=layer.device) * own_side // side
    return layer[:, (rows[:, None] * own_side + rows).flatten()]
