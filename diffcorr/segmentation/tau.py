"""A threshold for every image without labels: the one whose segments have the highest modularity.

Merging under a low threshold leaves many segments that attend to one another, under a high one few that
hold what does not belong together. Modularity (Newman & Girvan, 2004) weighs the two: the share of attention
that stays within segments, minus the share that would if attention did not care for segments. It needs no
unit: thresholds are tried as multiples of the mean distance between an image's maps, which differs between
models, resolutions and images.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from diffcorr.errors import DiffcorrError
from diffcorr.segmentation.merge import Mode, anchor_distance, merge, packed, present

MULTIPLES: tuple[float, ...] = tuple(round(0.1 * 12 ** (i / 11), 3) for i in range(12))
"""Thresholds tried, in units of the mean distance of anchors to maps: 0.1 .. 1.2, evenly in ratio."""

SMALLEST = 1e-5
"""Nats: mean distances below are rounding errors of equal maps."""


def modularity(maps: Tensor, labels: Tensor) -> Tensor:
    """Modularity of a division of the affinity graph, made symmetric, into segments.

    Q = sum over segments of (attention within) / (all attention) - (attention of the segment / all)^2, where
    the attention of a position is the mean of what it gives and what it gets (Newman & Girvan, 2004,
    equation 5, with weights).

    Args:
        maps: (B, hw, hw) affinity graphs, rows sum to 1.
        labels: (B, hw) segment numbers >= 0.

    Returns:
        (B,) below 1; 0 for one segment.
    """
    # few of the numbers occur: as few columns as an image has segments
    compact = torch.stack([own.unique(return_inverse=True)[1] for own in labels])
    members = F.one_hot(compact).to(maps.dtype)
    within = (members * (maps @ members)).sum((1, 2))
    degrees = (maps.sum(1) + maps.sum(2)) / 2
    total = degrees.sum(1)
    shares = (degrees[:, None] @ members)[:, 0] / total[:, None]
    return within / total - shares.square().sum(1)


def choose_tau(
    maps: Tensor,
    anchors: Tensor,
    *,
    iterations: int = 3,
    mode: Mode = "exact",
    distance: Tensor | None = None,
    multiples: Sequence[float] = MULTIPLES,
) -> tuple[Tensor, Tensor]:
    """Merge each image under the threshold that gives the highest modularity.

    Args:
        maps: (B, hw, hw) affinity graphs, rows sum to 1.
        anchors, iterations, mode, distance: see `merge`.
        multiples: thresholds that are tried, in units of the image's mean distance of anchors to maps.

    Returns:
        tau (B,) in nats, the lowest of equally good ones, and its proposals (B, K, hw), see `merge`.

    Raises:
        DiffcorrError: as `merge`; or no multiples.
    """
    if not multiples:
        raise DiffcorrError("expected one or more thresholds to try, found none")
    if distance is None:
        distance = anchor_distance(maps, anchors, mode=mode)
    unit = distance.to(maps.dtype).nanmean((1, 2)).nan_to_num(nan=1.0).clamp_min(SMALLEST)
    best_tau = torch.zeros_like(unit)
    best_score = torch.full_like(unit, -torch.inf)
    best = maps.new_full(distance.shape, torch.nan)
    for multiple in multiples:
        tau = multiple * unit
        proposals = merge(maps, anchors, tau, iterations=iterations, mode=mode, distance=distance)
        labels = proposals.where(present(proposals)[..., None], -torch.inf).argmax(1)
        score = modularity(maps, labels)
        better = score > best_score
        best_score = torch.where(better, score, best_score)
        best_tau = torch.where(better, tau, best_tau)
        best[better] = torch.nan
        best[better, : proposals.shape[1]] = proposals[better]
    return best_tau, packed(best)
