"""Percentage of correct keypoints (Yang & Ramanan, 2013): which points are correct, and their average.

Pairs have different numbers of points, so points of several pairs stand one after the other, and
``owner`` or ``sizes`` says whose they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from diffcorr.errors import ProtocolError

Average = Literal["image", "point", "category_image", "category_point"]
AVERAGES: tuple[Average, ...] = ("image", "point", "category_image", "category_point")


def distances(pred: Tensor, target: Tensor, scale: Tensor | None = None) -> Tensor:
    """Distances between predicted and true points, (N,) float64, in pixels of a space.

    Args:
        pred: (N, 2) predicted points (x, y) in original pixels; NaN gives NaN.
        target: (N, 2) true points.
        scale: (2,) or (N, 2) pixels of the space for one original pixel; None for original pixels.

    Raises:
        ProtocolError: shapes differ, or there is no point.
    """
    if pred.shape != target.shape or pred.ndim != 2 or pred.shape[1] != 2 or len(pred) == 0:
        raise ProtocolError(
            "expected predicted and true points of one shape (N, 2) with N >= 1, found "
            f"{tuple(pred.shape)} and {tuple(target.shape)}"
        )
    # double: in float32 the threshold itself is rounded, which decides points that lie exactly on it
    apart = pred.double() - target.double()
    if scale is not None:
        apart = apart * scale.to(apart)
    # one rounding for each operation: a point's distance is the same to the last bit in any batch
    x, y = apart.unbind(1)
    return (x * x + y * y).sqrt()


def correct_points(
    pred: Tensor,
    target: Tensor,
    threshold_length: float | Tensor,
    alphas: Sequence[float],
    *,
    inclusive: bool = True,
    scale: Tensor | None = None,
) -> Tensor:
    """Which points lie within alpha x threshold_length of the truth.

    Args:
        pred: (N, 2) predicted points (x, y); a NaN is wrong.
        target: (N, 2) true points, in the same pixels.
        threshold_length: length in pixels of the space, > 0; one for all points or (N,).
        alphas: A multiples of it.
        inclusive: whether a distance equal to the threshold is correct.
        scale: as in `distances`.

    Returns:
        (A, N) boolean.

    Raises:
        ProtocolError: shapes differ, there is no point, or a length is not positive.
    """
    distance = distances(pred, target, scale)
    length = torch.as_tensor(threshold_length, dtype=torch.float64, device=pred.device)
    if not bool((length > 0).all()):
        found = length if length.ndim == 0 else length[~(length > 0)][0]
        raise ProtocolError(f"expected a positive threshold length, found {found.item():g}")
    limits = torch.tensor(list(alphas), dtype=torch.float64, device=pred.device)[:, None] * length
    return distance <= limits if inclusive else distance < limits


def pck_per_pair(
    pred: Tensor, target: Tensor, threshold_length: float, alphas: Sequence[float], *, inclusive: bool = True
) -> Tensor:
    """Fraction of a pair's points that are correct, (A,) in 0..1; arguments as `correct_points`."""
    correct = correct_points(pred, target, threshold_length, alphas, inclusive=inclusive)
    return correct.double().mean(1)


def sum_per_pair(values: Tensor, owner: Tensor, num_pairs: int) -> Tensor:
    """Sums of points' values (N, A) over the pairs that own them: (P, A), of the values' type."""
    return values.new_zeros(num_pairs, values.shape[1]).index_add_(0, owner, values)


def weighted_parts(sums: Tensor, total: Tensor, average: Average) -> Tensor:
    """What each pair adds to numerator and denominator of an average, (P, A, 2) float64.

    Args:
        sums: (P, A) of each pair, such as its number of correct points.
        total: (P,) its number of points, >= 1.
        average: see `PointProtocol`.
    """
    weight = total[:, None].double().expand(sums.shape)
    parts = torch.stack([sums.double(), weight], -1)
    return parts if average.endswith("point") else parts / weight[..., None]


def groups_of(category: Tensor, average: Average) -> Tensor:
    """Which of the averaged scores a pair belongs to, (P,): all to one, or each to its category's."""
    return category if average.startswith("category") else torch.zeros_like(category)


def average_pairs(sums: Tensor, total: Tensor, category: Tensor, average: Average) -> Tensor:
    """Average of what pairs sum up to, (A,) float64; the arguments of `weighted_parts`.

    Args:
        sums: (P, A).
        total: (P,); pairs without points do not count.
        category: (P,) integers; needed by ``category_image`` and ``category_point`` alone.
        average: see `PointProtocol`. A category without pairs is not averaged over.

    Raises:
        ProtocolError: no pair has a point.
    """
    kept = total > 0
    if not bool(kept.any()):
        raise ProtocolError("expected one or more points to score, found none")
    parts = weighted_parts(sums[kept], total[kept], average)
    _, group = groups_of(category[kept], average).unique(return_inverse=True)
    totals = parts.new_zeros(int(group.max()) + 1, *parts.shape[1:]).index_add_(0, group, parts)
    score, weight = totals.unbind(-1)
    return (score / weight).mean(0)
