"""Iterative merging of attention maps under symmetric KL divergence (DiffSeg, sections 3.2 and 3.3).

Maps are rows of a matrix, one distribution over positions each. Two arithmetics:

- ``exact``: distances by matrix products in the maps' own float type, finite for zeros too.
- ``reference``: the authors' program. The first pass is done in half precision, element by element, where
  a value that underflows makes its distance NaN, which counts as "not close"; an anchor that is close to
  nothing becomes a row of NaN and drops out of the next pass. Later passes use the maps' own float type.

Both share the authors' greedy rule, which the paper leaves open: proposals are visited in index order, a
visited one absorbs all proposals under the threshold *including those that already belong to a group*.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from diffcorr.errors import DiffcorrError, UnknownNameError

Mode = Literal["exact", "reference"]
MODES: tuple[Mode, ...] = ("exact", "reference")
HALF_BLOCK = 64
"""Maps compared at a time in half precision: temporaries that stay in the cache are five times as fast."""


def anchor_grid(side: int, num_anchors: int) -> Tensor:
    """Positions of an M x M grid of anchors, centred on a square grid of that side.

    Args:
        side: side of the graph's grid.
        num_anchors: M, anchors along one side; one anchor stands in the middle.

    Returns:
        (M*M,) flat positions, row by row. For side 64 and M=16 the rows are 1, 5, ..., 61.

    Raises:
        DiffcorrError: M is not in 1..side.
    """
    if not 1 <= num_anchors <= side:
        raise DiffcorrError(f"expected 1..{side} anchors along the side of the graph, found {num_anchors}")
    step = (side - 1) // (num_anchors - 1) if num_anchors > 1 else 0
    start = (side - 1 - step * (num_anchors - 1)) // 2
    line = start + step * torch.arange(num_anchors)
    return (line[:, None] * side + line).flatten()


def symmetric_kl(a: Tensor, b: Tensor, *, clamp: bool = True) -> Tensor:
    """Symmetric KL divergence of all pairs of rows (DiffSeg, equation 2), by two matrix products.

    D(p, q) = 1/2 sum (p - q)(log p - log q) = 1/2 [p.log p + q.log q - p.log q - q.log p].

    Args:
        a: (M, D) distributions.
        b: (N, D) distributions.
        clamp: read zeros as the smallest normal number in the logarithm. Without, a zero makes every
            distance of its row NaN, as in the authors' program.

    Returns:
        (M, N) in nats, up to rounding >= 0.
    """
    log_a, log_b = (x.clamp_min(torch.finfo(x.dtype).tiny).log() if clamp else x.log() for x in (a, b))
    own = (a * log_a).sum(1)[:, None] + (b * log_b).sum(1)
    return (own - a @ log_b.T - log_a @ b.T) / 2


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


def merge(
    maps: Tensor,
    anchors: Tensor,
    tau: float | Sequence[float],
    *,
    iterations: int = 3,
    mode: Mode = "exact",
    distance: Tensor | None = None,
) -> Tensor:
    """Merge the maps of one image into proposals.

    The first iteration gives every anchor the mean of all maps closer than tau; each further one merges
    proposals among themselves.

    Args:
        maps: (hw, hw) affinity graph, rows sum to 1.
        anchors: (M,) rows that start a proposal.
        tau: threshold on the symmetric KL divergence in nats; a list gives one per iteration.
        iterations: number of passes, ignored when `tau` is a list.
        mode: arithmetic, see above.
        distance: (M, hw) of the anchors to all maps from `anchor_distance`, where it is known already: a
            sweep over tau needs it once.

    Returns:
        (K, hw) proposals, 1 <= K <= M, in the order of the anchor that started each.

    Raises:
        DiffcorrError: no iteration, a threshold that is not positive, or (``reference`` only) half
            precision left no anchor.
        UnknownNameError: unknown mode.
    """
    thresholds = threshold_list(tau, iterations)
    if distance is None:
        distance = anchor_distance(maps, anchors, mode=mode)
    proposals = _group_means(distance < thresholds[0], maps)
    for threshold in thresholds[1:]:
        close = symmetric_kl(proposals, proposals, clamp=mode == "exact") < threshold
        proposals = _group_means(greedy_groups(close), proposals)
    # a proposal that nothing was close to is NaN; with a single iteration no later pass dropped it
    proposals = proposals[proposals.isfinite().all(1)]
    if len(proposals) == 0:
        raise DiffcorrError("half precision left no anchor with a finite distance; use mode=exact")
    return proposals


def anchor_distance(maps: Tensor, anchors: Tensor, *, mode: Mode = "exact") -> Tensor:
    """Distances of the anchors (M,) to all maps (hw, hw): (M, hw), in the arithmetic of the mode.

    Raises:
        UnknownNameError: unknown mode.
    """
    if mode not in MODES:
        raise UnknownNameError("merging mode", mode, MODES)
    return (symmetric_kl if mode == "exact" else half_precision_kl)(maps[anchors], maps)


def threshold_list(tau: float | Sequence[float], iterations: int) -> list[float]:
    """One positive threshold per iteration.

    Raises:
        DiffcorrError: no iteration, or a threshold that is not positive.
    """
    thresholds = [float(tau)] * iterations if isinstance(tau, int | float) else [float(t) for t in tau]
    if not thresholds or min(thresholds) <= 0:
        raise DiffcorrError(f"expected positive thresholds for one or more iterations, found {thresholds}")
    return thresholds


def greedy_groups(close: Tensor) -> Tensor:
    """Groups in index order: whoever is in no group yet starts one with all that are close to it.

    Args:
        close: (N, N) boolean, [i, j] whether j may join the group of i.

    Returns:
        (G, N) boolean membership. A member may be in several groups; a row without any is dropped.
    """
    rows = close.cpu()
    taken = torch.zeros(len(rows), dtype=torch.bool)
    starts = []
    for i, row in enumerate(rows):
        if not taken[i] and row.any():
            taken |= row
            starts.append(i)
    return close[starts]


def _group_means(groups: Tensor, maps: Tensor) -> Tensor:
    """Mean map of each group, (G, N) x (N, D) -> (G, D); NaN for an empty group."""
    # a NaN outside of a group must not leak into it through 0 * NaN
    return groups.to(maps.dtype) @ maps.nan_to_num() / groups.sum(1, keepdim=True)
