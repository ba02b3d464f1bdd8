"""Percentage of correct keypoints (Yang & Ramanan, 2013) of one pair."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from diffcorr.errors import ProtocolError


def correct_points(
    pred: Tensor,
    target: Tensor,
    threshold_length: float,
    alphas: Sequence[float],
    *,
    inclusive: bool = True,
) -> Tensor:
    """Which points lie within alpha x threshold_length of the truth.

    Args:
        pred: (N, 2) predicted points (x, y); a NaN is wrong.
        target: (N, 2) true points, in the same pixels.
        threshold_length: length in those pixels, > 0.
        alphas: A multiples of it.
        inclusive: whether a distance equal to the threshold is correct.

    Returns:
        (A, N) boolean.

    Raises:
        ProtocolError: shapes differ, there is no point, or the length is not positive.
    """
    if pred.shape != target.shape or pred.ndim != 2 or pred.shape[1] != 2 or len(pred) == 0:
        raise ProtocolError(
            "expected predicted and true points of one shape (N, 2) with N >= 1, found "
            f"{tuple(pred.shape)} and {tuple(target.shape)}"
        )
    if not threshold_length > 0:
        raise ProtocolError(f"expected a positive threshold length, found {threshold_length}")
    # double: in float32 the threshold itself is rounded, which decides points that lie exactly on it
    distance = torch.linalg.vector_norm(pred.double() - target.double(), dim=1)
    limits = torch.tensor(alphas, dtype=torch.float64, device=pred.device)[:, None] * threshold_length
    return distance <= limits if inclusive else distance < limits


def pck_per_pair(
    pred: Tensor, target: Tensor, threshold_length: float, alphas: Sequence[float], *, inclusive: bool = True
) -> Tensor:
    """Fraction of a pair's points that are correct, (A,) in 0..1; arguments as `correct_points`."""
    correct = correct_points(pred, target, threshold_length, alphas, inclusive=inclusive)
    return correct.double().mean(1)
