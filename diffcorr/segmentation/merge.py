"""Iterative merging of attention maps under symmetric KL divergence (DiffSeg, sections 3.2 and 3.3).

Maps are rows of a matrix, one distribution over positions each; every step works on a batch of images. Two
arithmetics:

- ``exact``: distances by matrix products in the maps' own float type, finite for zeros too.
- ``reference``: the authors' program. The first pass is done in half precision, element by element, where
  a value that underflows makes its distance NaN, which counts as "not close"; an anchor that is close to
  nothing becomes a row of NaN and drops out of the next pass. Later passes use the maps' own float type.

Both share the authors' greedy rule, which the paper leaves open: proposals are visited in index order, a
visited one absorbs all proposals under the threshold *including those that already belong to a group*.

The number of proposals differs from image to image: those of a batch are (B, K, hw) in the order of the
anchors that started them, and an image with fewer than K ends in rows of NaN (`present` tells them apart).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from diffcorr.errors import DiffcorrError, UnknownNameError
from diffcorr.segmentation.framing import Grid

Mode = Literal["exact", "reference"]
MODES: tuple[Mode, ...] = ("exact", "reference")
HALF_BLOCK = 64
"""Maps compared at a time in half precision: temporaries that stay in the cache are five times as fast."""
KL_BLOCK = 1024
"""Maps compared at a time by matrix products: bounds the memory of their logarithms."""


def anchor_grid(grid: Grid, num_anchors: int | Grid) -> Tensor:
    """Positions of an M x M grid of anchors, centred on the graph's grid.

    Args:
        grid: (h, w) of the graph.
        num_anchors: M, anchors along each side, or one number for rows and one for columns; one anchor
            stands in the middle.

    Returns:
        (M*M,) flat positions, row by row. For 64 cells and M=16 the rows are 1, 5, ..., 61.

    Raises:
        DiffcorrError: more anchors along a side than cells, or none.
    """
    counts = (num_anchors, num_anchors) if isinstance(num_anchors, int) else num_anchors
    rows, columns = (_anchor_line(side, count) for side, count in zip(grid, counts, strict=True))
    return (rows[:, None] * grid[1] + columns).flatten()


def symmetric_kl(a: Tensor, b: Tensor, *, clamp: bool = True) -> Tensor:
    """Symmetric KL divergence of all pairs of rows (DiffSeg, equation 2), by two matrix products.

    D(p, q) = 1/2 sum (p - q)(log p - log q) = 1/2 [p.log p + q.log q - p.log q - q.log p].

    Args:
        a: (..., M, D) distributions.
        b: (..., N, D) distributions.
        clamp: read zeros as the smallest normal number in the logarithm. Without, a zero makes every
            distance of its row NaN, as in the authors' program.

    Returns:
        (..., M, N) in nats, up to rounding >= 0.
    """

    def log(p: Tensor) -> Tensor:
        return p.clamp_min(torch.finfo(p.dtype).tiny).log_() if clamp else p.log()

    log_a = log(a)
    own_a = (a * log_a).sum(-1)
    blocks = []
    for q in b.split(KL_BLOCK, -2):
        log_q = log(q)
        crossed = a @ log_q.mT + log_a @ q.mT
        blocks.append((own_a[..., None] + (q * log_q).sum(-1)[..., None, :] - crossed) / 2)
    return torch.cat(blocks, -1)


def half_precision_kl(a: Tensor, b: Tensor) -> Tensor:
    """The first pass of the authors' program: `symmetric_kl` element by element in float16.

    Args:
        a: (M, D) distributions.
        b: (N, D) distributions.

    Returns:
        (M, N) float16; NaN where any value of either row underflows.
    """
    a, b = a.half(), b.half()
    log_a = a.log()
    distance = torch.full((len(a), len(b)), torch.nan, dtype=torch.float16, device=a.device)
    # an underflow makes all distances of its row NaN: only rows without are worth computing
    whole_a, whole_b = ((x > 0).all(1).nonzero().flatten() for x in (a, b))
    for block in whole_b.split(HALF_BLOCK):
        q, log_q = b[block], b[block].log()
        for i in whole_a.tolist():
            log_ratio = log_a[i] - log_q
            distance[i, block] = (a[i] * log_ratio).sum(1) / 2 - (q * log_ratio).sum(1) / 2
    return distance


def anchor_distance(maps: Tensor, anchors: Tensor, *, mode: Mode = "exact") -> Tensor:
    """Distances of the anchors to all maps, in the arithmetic of the mode.

    Args:
        maps: (B, hw, hw) affinity graphs, rows sum to 1.
        anchors: (M,) rows that start a proposal.
        mode: arithmetic, see above.

    Returns:
        (B, M, hw); `merge` needs them once for any number of thresholds.

    Raises:
        DiffcorrError: maps that are not finite.
        UnknownNameError: unknown mode.
    """
    if mode not in MODES:
        raise UnknownNameError("merging mode", mode, MODES)
    if not bool(maps.isfinite().all()):
        raise DiffcorrError("expected finite attention maps, found NaN or infinity; use a wider float type")
    anchors = anchors.to(maps.device)
    if mode == "reference":
        return torch.stack([half_precision_kl(own[anchors], own) for own in maps])
    distance = symmetric_kl(maps[:, anchors], maps)
    # of an anchor to itself it is exactly 0, which a tiny threshold must not miss for a rounding error
    distance[:, torch.arange(len(anchors), device=distance.device), anchors] = 0
    return distance


def merge(
    maps: Tensor,
    anchors: Tensor,
    tau: float | Sequence[float] | Tensor,
    *,
    iterations: int = 3,
    mode: Mode = "exact",
    distance: Tensor | None = None,
) -> Tensor:
    """Merge the maps of each image into proposals.

    The first iteration gives every anchor the mean of all maps closer than tau (`gather`); each further one
    merges proposals among themselves (`absorb`).

    Args:
        maps: (B, hw, hw) affinity graphs, rows sum to 1.
        anchors: (M,) rows that start a proposal.
        tau: threshold on the symmetric KL divergence in nats; a list gives one per iteration, a tensor (B,)
            one per image.
        iterations: number of passes, ignored when `tau` is a list.
        mode: arithmetic, see above.
        distance: (B, M, hw) of the anchors to all maps from `anchor_distance`, where it is known already: a
            sweep over tau needs it once.

    Returns:
        (B, K, hw) proposals, 1 <= K <= M, in the order of the anchors that started them; NaN where an image
        has fewer than K.

    Raises:
        DiffcorrError: maps that are not finite, no iteration, a threshold that is not positive, or
            (``reference`` only) half precision left no anchor.
        UnknownNameError: unknown mode.
    """
    thresholds = threshold_list(tau, iterations)
    if distance is None:
        distance = anchor_distance(maps, anchors, mode=mode)
    proposals = gather(maps, distance, thresholds[0])
    for threshold in thresholds[1:]:
        proposals = absorb(proposals, threshold, mode=mode)
    if not bool(present(proposals).any(1).all()):
        raise DiffcorrError("half precision left no anchor with a finite distance; use mode=exact")
    return packed(proposals)


def gather(maps: Tensor, distance: Tensor, tau: float | Tensor) -> Tensor:
    """First iteration: every anchor becomes the mean of all maps closer than tau.

    Args:
        maps: (B, hw, hw).
        distance: (B, M, hw) of the anchors to the maps.
        tau: threshold in nats, one or (B,).

    Returns:
        (B, M, hw); NaN for an anchor that nothing is close to.
    """
    return _group_means(distance < _of_each_image(tau), maps)


def absorb(proposals: Tensor, tau: float | Tensor, *, mode: Mode = "exact") -> Tensor:
    """Further iterations: proposals closer than tau to one another become their mean, by `greedy_groups`.

    Args:
        proposals: (B, K, hw), rows of NaN where there is none.
        tau: threshold in nats, one or (B,).
        mode: ``reference`` lets a zero make all distances of its row NaN.

    Returns:
        (B, K, hw), a group in the place of its first member among those present; other rows are NaN.
    """
    proposals = packed(proposals)
    distance = symmetric_kl(proposals, proposals, clamp=mode == "exact")
    close = distance < _of_each_image(tau)
    if mode == "exact":
        close.diagonal(dim1=-2, dim2=-1).copy_(present(proposals))
    return _group_means(greedy_groups(close), proposals.nan_to_num())


def present(proposals: Tensor) -> Tensor:
    """Which places (B, K) of (B, K, hw) hold a proposal."""
    return proposals.isfinite().all(-1)


def packed(proposals: Tensor) -> Tensor:
    """The same proposals without the places that no image needs: present ones first, their order kept."""
    there = present(proposals)
    most = int(there.sum(1).max())
    order = torch.argsort((~there).int(), dim=1, stable=True)[:, :most]
    return proposals.gather(1, order[..., None].expand(-1, -1, proposals.shape[-1]))


def threshold_list(tau: float | Sequence[float] | Tensor, iterations: int) -> list[float | Tensor]:
    """One positive threshold per iteration; a tensor's hold for one image each.

    Raises:
        DiffcorrError: no iteration, or a threshold that is not positive.
    """
    listed: list[float | Tensor]
    listed = [tau] * iterations if isinstance(tau, int | float | Tensor) else [float(t) for t in tau]
    if not listed or not all(bool(torch.as_tensor(t).gt(0).all()) for t in listed):
        raise DiffcorrError(f"expected positive thresholds for one or more iterations, found {listed}")
    return listed


def greedy_groups(close: Tensor) -> Tensor:
    """Groups in index order: whoever is in no group yet starts one with all that are close to it.

    Args:
        close: (B, N, N) boolean, [b, i, j] whether j may join the group of i.

    Returns:
        (B, N, N) boolean membership of the group that i starts; empty where it starts none. A member may be
        in several groups.
    """
    rows = close.cpu().numpy()  # one transfer: a loop of tiny steps is slow on a GPU
    groups = np.zeros_like(rows)
    for own, found in zip(rows, groups, strict=True):
        taken = np.zeros(len(own), dtype=bool)
        for i in np.flatnonzero(own.any(1)):
            if not taken[i]:
                taken |= own[i]
                found[i] = own[i]
    return torch.from_numpy(groups).to(close.device)


def _anchor_line(side: int, count: int) -> Tensor:
    if not 1 <= count <= side:
        raise DiffcorrError(f"expected 1..{side} anchors along a side of {side} cells, found {count}")
    step = (side - 1) // (count - 1) if count > 1 else 0
    start = (side - 1 - step * (count - 1)) // 2
    return start + step * torch.arange(count)


def _of_each_image(tau: float | Tensor) -> float | Tensor:
    return tau[:, None, None] if isinstance(tau, Tensor) else tau


def _group_means(groups: Tensor, maps: Tensor) -> Tensor:
    """Mean map of each group, (B, G, N) x (B, N, D) -> (B, G, D); NaN for an empty group."""
    return groups.to(maps.dtype) @ maps / groups.sum(-1, keepdim=True)
