"""Fusing self-attention of several resolutions into one affinity graph.

DiffSeg (Tian et al., CVPR 2024), section 3.1, equation 1: the map of every query position is upsampled to
the finest grid, normalised to sum 1, repeated over the query positions that a coarse one covers, and
averaged over resolutions with weights proportional to their side.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

from diffcorr.errors import LayerError
from diffcorr.segmentation.framing import Grid


def aggregate(
    maps: Mapping[Grid, Tensor],
    *,
    grid: Grid | None = None,
    weights: Mapping[Grid, float] | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Fuse one map tensor per resolution into the affinity graph A (DiffSeg, equation 1).

    Beside `maps` and the result it holds one more tensor of the result's size.

    Args:
        maps: (h, w) -> (B, h*w, h*w), non-negative, any set of resolutions: attention of the query position
            (rows) over the key positions (columns), heads and layers already averaged.
        grid: (h, w) of the graph; by default the largest resolution in `maps`.
        weights: (h, w) -> relative weight; by default the height, which is the side of square maps.
        dtype: float type of the result and of the sums.

    Returns:
        (B, h*w, h*w): every row is a distribution over positions, it sums to 1.

    Raises:
        LayerError: no maps, a map of another shape, a resolution beyond `grid`, no weight for one, or a map
            that is no distribution (not finite, negative, or zero everywhere).
    """
    if not maps:
        raise LayerError("expected self-attention maps, found none; name layers that have self-attention")
    grid = max(maps, key=prod) if grid is None else grid
    weights = {g: float(g[0]) for g in maps} if weights is None else weights
    if missing := [g for g in maps if weights.get(g, 0) <= 0]:
        raise LayerError(f"expected a positive weight for every resolution, found none for {missing}")
    if too_fine := [g for g in maps if g[0] > grid[0] or g[1] > grid[1]]:
        raise LayerError(f"maps of {too_fine[0]} do not fit a graph of {grid}; raise the graph's grid")
    weight_sum = sum(weights[g] for g in maps)

    graph: Tensor | None = None
    for own, layer in maps.items():
        if layer.ndim != 3 or layer.shape[1:] != (prod(own), prod(own)):
            raise LayerError(f"expected maps (B, hw, hw) of {own}, found shape {tuple(layer.shape)}")
        fused = _upsample_keys(layer.to(dtype), own, grid)
        sums = fused.sum(-1, keepdim=True)
        if not (bool(torch.isfinite(sums).all()) and bool((sums > 0).all()) and float(fused.min()) >= 0):
            raise LayerError(
                f"attention of {own} is no distribution (NaN, negative or zero everywhere); "
                "run the backbone in a wider float type"
            )
        fused = _repeat_queries(fused * (weights[own] / weight_sum / sums), own, grid)
        graph = fused if graph is None else graph.add_(fused)
    assert graph is not None
    return graph


def restrict(graph: Tensor, grid: Grid, window: tuple[slice, slice]) -> Tensor:
    """The graph among the cells of a window alone, its rows normalised anew.

    Args:
        graph: (B, hw, hw), rows sum to 1.
        grid: (h, w).
        window: rows and columns of cells that are kept.

    Returns:
        (B, n, n) for the n cells of the window; the graph itself where the window is all of it.
    """
    rows, columns = (torch.arange(n, device=graph.device)[kept] for n, kept in zip(grid, window, strict=True))
    if (len(rows), len(columns)) == grid:
        return graph
    cells = (rows[:, None] * grid[1] + columns).flatten()
    inner = graph[:, cells[:, None], cells]
    # attention may all have gone to what is cut off: such a position is left to look everywhere alike
    inner = inner.clamp_min(torch.finfo(inner.dtype).tiny)
    return inner / inner.sum(-1, keepdim=True)


def _upsample_keys(layer: Tensor, own: Grid, grid: Grid) -> Tensor:
    if own == grid:
        return layer
    keys = layer.unflatten(-1, own)
    return F.interpolate(keys, size=grid, mode="bilinear", align_corners=False).flatten(-2)


def _repeat_queries(layer: Tensor, own: Grid, grid: Grid) -> Tensor:
    if own == grid:
        return layer
    # nearest coarse cell; for an integer ratio this is the plain repetition of the paper
    rows, columns = (
        torch.arange(n, device=layer.device) * coarse // n for n, coarse in zip(grid, own, strict=True)
    )
    return layer[:, (rows[:, None] * own[1] + columns).flatten()]
