"""Items (pairs, images) gathered from several processes."""

from __future__ import annotations

import torch
from torch import Tensor


def first_of_each(index: Tensor) -> tuple[Tensor, Tensor]:
    """Distinct values of an index (N,) in ascending order, and the position where each occurs first."""
    order = index.argsort(stable=True)
    ordered = index[order]
    keep = torch.ones_like(ordered, dtype=torch.bool)
    keep[1:] = ordered[1:] != ordered[:-1]
    return ordered[keep], order[keep]
