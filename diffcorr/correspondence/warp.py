"""Moving least squares: points of one image carried to another by control points (Schaefer et al. 2006).

Schaefer, McPhail and Warren, "Image deformation using moving least squares", ACM TOG 25(3).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Deformation = Literal["affine", "similarity"]
DEFORMATIONS = ("affine", "similarity")

FLAT = 1e-6
"""Ratio of the smaller to the larger spread of control points below which they count as collinear."""

ROUNDING = 1e-12
"""Spread, as a fraction of the coordinates, below which control points count as one."""


def moving_least_squares(
    points_N2: Tensor,
    from_K2: Tensor,
    to_K2: Tensor,
    deformation: Deformation = "affine",
    falloff: float = 1.0,
) -> Tensor:
    """Where points go when control points ``from`` go to ``to``: (N, 2), float64.

    At each point v the affine map (section 2.1) or the similarity (section 2.2) is taken that fits all
    control points best, weighted by 1 / |p - v|^(2 falloff). A control point goes exactly where it is told.

    Where the weighted control points do not fix the map, a simpler one takes its place: collinear ones (or
    two) a similarity instead of an affine map, coincident ones (or a single one) a translation. The
    result is finite for all finite input.

    Args:
        points_N2: points.
        from_K2, to_K2: at least one control point, and where each goes.
        deformation: ``affine`` or ``similarity``.
        falloff: the paper's alpha; the larger, the more local is the warp.
    """
    points, p, q = (t.double() for t in (points_N2, from_K2, to_K2))
    assert len(p) == len(q) > 0
    squared = (points[:, None] - p[None]).square().sum(-1)
    nearest = squared.amin(1, keepdim=True)
    # only ratios of weights matter: the nearest control point's is 1, so that none overflows
    weights = torch.where(squared == nearest, 1.0, (nearest / squared.clamp(min=1e-300)) ** falloff)
    weights /= weights.sum(1, keepdim=True)
    p_mean, q_mean = weights @ p, weights @ q
    p_hat, q_hat = p[None] - p_mean[:, None], q[None] - q_mean[:, None]  # (N, K, 2)
    arm = points - p_mean

    moment = torch.einsum("nk,nki,nkj->nij", weights, p_hat, p_hat)
    mixed = torch.einsum("nk,nki,nkj->nij", weights, p_hat, q_hat)
    spread = torch.linalg.eigvalsh(moment)  # ascending
    single = spread[:, 1] <= ROUNDING**2 * p.square().sum(-1).amax()
    flat = spread[:, 0] <= FLAT**2 * spread[:, 1]

    eye = torch.eye(2, dtype=p.dtype, device=p.device)
    matrix = _similarity(moment, mixed, single)
    if deformation == "affine":
        safe = torch.where((single | flat)[:, None, None], eye, moment)
        matrix = torch.where(flat[:, None, None], matrix, torch.linalg.solve(safe, mixed))
    matrix = torch.where(single[:, None, None], eye, matrix)
    warped = torch.einsum("ni,nij->nj", arm, matrix) + q_mean
    exact = (nearest == 0)[:, 0]
    return torch.where(exact[:, None], q[squared.argmin(1)], warped)


def _similarity(moment_N22: Tensor, mixed_N22: Tensor, single_N: Tensor) -> Tensor:
    """The best rotation with scale: as complex numbers, sum conj(p) q / sum |p|^2."""
    size = moment_N22.diagonal(dim1=1, dim2=2).sum(1)
    size = torch.where(single_N, 1.0, size)
    real = (mixed_N22[:, 0, 0] + mixed_N22[:, 1, 1]) / size
    imaginary = (mixed_N22[:, 0, 1] - mixed_N22[:, 1, 0]) / size
    return torch.stack([torch.stack([real, imaginary], -1), torch.stack([-imaginary, real], -1)], 1)
