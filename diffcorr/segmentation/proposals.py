"""From merged proposals to a mask (DiffSeg, section 3.4), with optional K-means refinement."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from diffcorr.errors import DiffcorrError
from diffcorr.segmentation.kmeans import kmeans

CHUNK = 16
"""Proposals upsampled at a time: bounds the memory at CHUNK images whatever their number."""


def refine(maps: Tensor, proposals: Tensor) -> Tensor:
    """K-means over all maps of an image that starts from the proposals.

    Args:
        maps: (hw, hw) affinity graph.
        proposals: (K, hw).

    Returns:
        (K', hw) means of the clusters that kept a member, K' <= K, in the order of the proposals.
    """
    labels, _ = kmeans(maps, proposals)
    members = F.one_hot(labels, len(proposals)).to(maps.dtype).T
    counts = members.sum(1, keepdim=True)
    kept = counts.flatten() > 0
    return members[kept] @ maps / counts[kept]


def suppress(proposals: Tensor, size: tuple[int, int]) -> Tensor:
    """Non-maximum suppression: upsample the proposals bilinearly, every pixel takes the highest.

    Args:
        proposals: (K, hw), square grids.
        size: (H, W) of the mask, of any aspect: the grid covers the whole image.

    Returns:
        (H, W) int64, index of the winning proposal (the lowest index of equals), 0..K-1. An index may
        have no pixel.

    Raises:
        DiffcorrError: no proposal, or one that is not finite.
    """
    if len(proposals) == 0 or not bool(proposals.isfinite().all()):
        raise DiffcorrError(f"expected one or more finite proposals, found {tuple(proposals.shape)}")
    side = round(proposals.shape[1] ** 0.5)
    grids = proposals.view(-1, 1, side, side)
    best = torch.full(size, -torch.inf, dtype=proposals.dtype, device=proposals.device)
    mask = torch.zeros(size, dtype=torch.int64, device=proposals.device)
    for start in range(0, len(grids), CHUNK):
        chunk = grids[start : start + CHUNK]
        value, index = F.interpolate(chunk, size=size, mode="bilinear", align_corners=False)[:, 0].max(0)
        higher = value > best
        best = torch.where(higher, value, best)
        mask = torch.where(higher, index + start, mask)
    return mask
