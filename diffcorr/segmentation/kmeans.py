"""Lloyd's K-means on torch tensors, with given or k-means++ starting centres."""

from __future__ import annotations

import torch
from torch import Tensor

from diffcorr.errors import DiffcorrError


def kmeans(
    points: Tensor, centres: Tensor, *, max_iterations: int = 300, tolerance: float = 1e-4
) -> tuple[Tensor, Tensor]:
    """Lloyd's iterations until no label changes or the centres hardly move.

    A cluster that runs empty restarts at the point farthest from its centre.

    Args:
        points: (N, D).
        centres: (K, D) starting centres, 1 <= K <= N.
        max_iterations: upper bound on passes over the points.
        tolerance: stop when the squared movement of all centres together falls below this multiple of the
            mean variance of the coordinates.

    Returns:
        labels (N,) int64 in 0..K-1, and centres (K, D).

    Raises:
        DiffcorrError: more clusters than points, or none.
    """
    if not 1 <= len(centres) <= len(points):
        raise DiffcorrError(f"expected 1..{len(points)} clusters for as many points, found {len(centres)}")
    offset = points.mean(0)  # distances are differences of squares: keep the squares small
    points, centres = points - offset, centres - offset
    limit = tolerance * float(points.var(0, unbiased=False).mean())
    labels = _nearest(points, centres)
    for _ in range(max_iterations):
        moved = _means(points, labels, centres)
        shift = float((moved - centres).square().sum())
        centres, previous = moved, labels
        labels = _nearest(points, centres)
        if shift <= limit or torch.equal(labels, previous):
            break
    return labels, centres + offset


def plus_plus(points: Tensor, num_clusters: int, generator: torch.Generator) -> Tensor:
    """k-means++ seeding (Arthur & Vassilvitskii, 2007): far points are likelier to become centres.

    Args:
        points: (N, D).
        num_clusters: K, at most N.
        generator: source of the draws, on the CPU.

    Returns:
        (K, D) starting centres; repeated points where there are fewer than K distinct ones.
    """
    first = int(torch.randint(len(points), (1,), generator=generator))
    chosen = [first]
    distance = (points - points[first]).square().sum(1)
    for _ in range(num_clusters - 1):
        cumulative = distance.double().cumsum(0)
        draw = torch.rand((), generator=generator, dtype=torch.float64).to(points.device) * cumulative[-1]
        index = min(int(torch.searchsorted(cumulative, draw, right=True)), len(points) - 1)
        chosen.append(index)
        distance = torch.minimum(distance, (points - points[index]).square().sum(1))
    return points[chosen]


def best_kmeans(
    points: Tensor, num_clusters: int, *, restarts: int = 4, max_iterations: int = 300, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """The tightest of several clusterings from k-means++ starts, the first of equals.

    Args:
        points: (N, D).
        num_clusters: K, at most N.
        restarts: number of starts.
        max_iterations: Lloyd's iterations of each start.
        seed: of the starts.

    Returns:
        labels (N,) int64 in 0..K-1, and centres (K, D).

    Raises:
        DiffcorrError: more clusters than points, or none; no start.
    """
    if restarts < 1:
        raise DiffcorrError(f"expected one or more restarts of K-means, found {restarts}")
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(restarts):
        starts = plus_plus(points, num_clusters, generator)
        labels, centres = kmeans(points, starts, max_iterations=max_iterations)
        found.append((inertia(points, labels, centres), labels, centres))
    _, labels, centres = min(found, key=lambda run: run[0])
    return labels, centres


def inertia(points: Tensor, labels: Tensor, centres: Tensor) -> float:
    """Sum of squared distances of the points (N, D) to their own centre."""
    return float((points - centres[labels]).square().sum())


def _nearest(points: Tensor, centres: Tensor) -> Tensor:
    # the points' own squares do not change which centre is nearest
    return (centres.square().sum(1) - 2 * points @ centres.T).argmin(1)


def _means(points: Tensor, labels: Tensor, centres: Tensor) -> Tensor:
    counts = torch.bincount(labels, minlength=len(centres))
    if bool((counts == 0).any()):
        labels = labels.clone()
        order = (points - centres[labels]).square().sum(1).argsort(descending=True, stable=True).tolist()
        empty = counts.eq(0).nonzero().flatten().tolist()
        for index in order:
            if not empty:
                break
            if counts[labels[index]] > 1:  # never empty another cluster
                counts[labels[index]] -= 1
                labels[index] = empty.pop()
        counts = torch.bincount(labels, minlength=len(centres))
    sums = torch.zeros_like(centres).index_add_(0, labels, points)
    return sums / counts[:, None]
