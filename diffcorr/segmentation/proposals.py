"""From merged proposals to a mask (DiffSeg, section 3.4), with what may stand in between.

Proposals are (B, K, hw), one map each; the places of absent ones are rows of NaN, see
`diffcorr.segmentation.merge`. Nothing here lets a NaN reach a mask.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from diffcorr.errors import DiffcorrError
from diffcorr.segmentation.framing import Grid
from diffcorr.segmentation.kmeans import kmeans
from diffcorr.segmentation.merge import present, symmetric_kl
from diffcorr.types import Box

CHUNK = 16
"""Proposals upsampled at a time: bounds the memory at CHUNK images whatever their number."""


def refine(maps: Tensor, proposals: Tensor) -> Tensor:
    """K-means over all maps of an image that starts from its proposals.

    Args:
        maps: (B, hw, hw) affinity graphs.
        proposals: (B, K, hw).

    Returns:
        (B, K, hw) means of the clusters, in the places of the proposals; NaN where none was or where a
        cluster lost all members.
    """
    refined = torch.full_like(proposals, torch.nan)
    for own, starts, there, found in zip(maps, proposals, present(proposals), refined, strict=True):
        labels, _ = kmeans(own, starts[there])
        members = F.one_hot(labels, int(there.sum())).to(own.dtype).T
        found[there] = members @ own / members.sum(1, keepdim=True)
    return refined


def nearest(maps: Tensor, proposals: Tensor) -> Tensor:
    """Which maps are nearer to a proposal than to any other: 1 or 0, to be upsampled like a proposal.

    Args:
        maps: (B, hw, hw) affinity graphs.
        proposals: (B, K, hw).

    Returns:
        (B, K, hw) of ones and zeros by `symmetric_kl`; NaN where there is no proposal.
    """
    distance = symmetric_kl(proposals, maps).nan_to_num(nan=torch.inf)
    members = F.one_hot(distance.argmin(1), proposals.shape[1]).mT.to(proposals.dtype)
    return members.where(present(proposals)[..., None], torch.nan)


def memberships(labels: Tensor, num_segments: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Labels (hw,) in 0..K-1 as maps (K, hw) of ones and zeros, to be upsampled like proposals."""
    return F.one_hot(labels, num_segments).T.to(dtype)


def suppress(proposals: Tensor, grid: Grid, size: tuple[int, int], box: Box | None = None) -> Tensor:
    """Non-maximum suppression: upsample the proposals bilinearly, every pixel takes the highest.

    Args:
        proposals: (B, K, hw), rows of NaN where there is none.
        grid: (h, w) of the proposals.
        size: (H, W) of the mask.
        box: where the image lies, in cells (left, top, right, bottom), see `Frame.box`; by default the grid
            covers all of it. Pixels beyond the outer cells' centres take the value of the cell.

    Returns:
        (B, H, W) int64, number of the winning proposal among those present (the lowest of equals), 0..K-1. A
        number may have no pixel.

    Raises:
        DiffcorrError: an image without any finite proposal.
    """
    there = present(proposals)
    if proposals.shape[1] == 0 or not bool(there.any(1).all()):
        raise DiffcorrError(f"expected one or more finite proposals, found {tuple(proposals.shape)}")
    left, top, right, bottom = box or (0, 0, grid[1], grid[0])
    rows = bilinear_weights(grid[0], size[0], top, bottom).to(proposals)
    columns = bilinear_weights(grid[1], size[1], left, right).to(proposals)
    return torch.stack(
        [
            _highest(own[kept].unflatten(-1, grid), rows, columns)
            for own, kept in zip(proposals, there, strict=True)
        ]
    )


def bilinear_weights(num_cells: int, num_pixels: int, low: float, high: float) -> Tensor:
    """What each cell along a line contributes to each pixel: rows sum to 1.

    Args:
        num_cells: cells of the line; cell i covers i..i+1.
        num_pixels: pixels that divide low..high evenly.
        low, high: in cells; beyond the centres of the outer cells their value continues.

    Returns:
        (num_pixels, num_cells) float64.
    """
    centres = low + (torch.arange(num_pixels, dtype=torch.float64) + 0.5) * (high - low) / num_pixels - 0.5
    centres = centres.clamp(0, num_cells - 1)
    cells = torch.arange(num_cells, dtype=torch.float64)
    return (1 - (centres[:, None] - cells).abs()).clamp_min(0)


def _highest(grids: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    size = len(rows), len(columns)
    best = torch.full(size, -torch.inf, dtype=grids.dtype, device=grids.device)
    mask = torch.zeros(size, dtype=torch.int64, device=grids.device)
    for start in range(0, len(grids), CHUNK):
        value, index = (rows @ grids[start : start + CHUNK] @ columns.T).max(0)
        higher = value > best
        best = torch.where(higher, value, best)
        mask = torch.where(higher, index + start, mask)
    return mask
