"""Scores of class-agnostic segments: matched to classes image by image, counted over the data set.

Two accountings of one image, see `class_counts`. Counts of images add up; IoU of a class is taken from the
sums, and the mean IoU is the mean over the classes that occur.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from diffcorr.errors import ProtocolError

Accounting = Literal["present", "diffseg"]


def confusion(mask: Tensor, label: Tensor, num_classes: int) -> Tensor:
    """Pixels of each class in each segment.

    Args:
        mask: (H, W) integer segment ids >= 0.
        label: (H, W) integer classes; anything outside of 0..num_classes-1 is ignored.
        num_classes: C.

    Returns:
        (C, K) int64 with K = highest segment id + 1.

    Raises:
        ProtocolError: shapes differ, a mask that is not integer, or a negative segment id.
    """
    if mask.shape != label.shape:
        raise ProtocolError(f"expected mask and label of one shape, found {mask.shape} and {label.shape}")
    if mask.is_floating_point() or label.is_floating_point() or mask.numel() == 0 or int(mask.min()) < 0:
        raise ProtocolError("expected integer segment ids >= 0 and integer classes")
    num_segments = int(mask.max()) + 1
    kept = (label >= 0) & (label < num_classes)
    cells = label[kept].long() * num_segments + mask[kept].long()
    return torch.bincount(cells, minlength=num_classes * num_segments).view(num_classes, num_segments)


def class_counts(mask: Tensor, label: Tensor, num_classes: int, accounting: Accounting = "present") -> Tensor:
    """True positives, false positives and false negatives of each class in one image.

    ``present``: segments are matched one to one with the classes that occur in the label, so that the
    number of pixels in matched pairs is largest. Pixels of a segment without a match are predicted as no
    class: they are false negatives of their class and false positives of none. A class and a segment
    without a common pixel are never a match. The counts do not depend on how segments are numbered.

    ``diffseg`` (the program of Tian et al., CVPR 2024): segments are matched with all classes, also absent
    ones; where they outnumber the classes of the image, the solver's choice among equals decides which
    absent classes collect false positives, and those depend on the numbering.

    Args:
        mask: (H, W) integer segment ids >= 0.
        label: (H, W) integer classes; anything outside of 0..num_classes-1 is ignored.
        num_classes: C.
        accounting: see above.

    Returns:
        (3, C) int64: tp, fp, fn in pixels. tp + fn of a class are its pixels.

    Raises:
        ProtocolError: as `confusion`.
    """
    hist_CK = confusion(mask, label, num_classes).cpu().numpy()
    match = _match_all if accounting == "diffseg" else _match_present
    tp, fp = match(hist_CK)
    counts = np.stack([tp, fp, hist_CK.sum(1) - tp])
    return torch.from_numpy(counts).to(mask.device)


def _match_present(hist_CK: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    present = np.flatnonzero(hist_CK.sum(1))
    # canonical order of segments by their contents: equal solutions are chosen alike for any numbering
    hist = hist_CK[present]
    hist = hist[:, np.lexsort(hist)] if hist.size else hist
    rows, columns = linear_sum_assignment(hist, maximize=True)
    overlap = hist[rows, columns]
    tp, fp = np.zeros((2, len(hist_CK)), dtype=np.int64)
    tp[present[rows]] = overlap
    # without a common pixel there is no match, hence no false positives
    fp[present[rows]] = np.where(overlap > 0, hist[:, columns].sum(0) - overlap, 0)
    return tp, fp


def _match_all(hist_CK: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    num_classes, num_segments = hist_CK.shape
    hist = np.pad(hist_CK, ((0, 0), (0, max(0, num_classes - num_segments))))
    rows, columns = linear_sum_assignment(hist, maximize=True)
    tp = hist[rows, columns]
    return tp, hist[:, columns].sum(0) - tp


def iou_from_counts(counts: Tensor) -> Tensor:
    """Intersection over union of each class.

    Args:
        counts: (..., 3, C) tp, fp, fn.

    Returns:
        (..., C) float64 in 0..1, NaN where a class has neither pixels nor false positives.
    """
    counts = counts.double()
    return counts[..., 0, :] / counts.sum(-2)


def mean_iou_from_counts(counts: Tensor) -> Tensor:
    """Mean of `iou_from_counts` over the classes that are not NaN: (..., 3, C) -> (...)."""
    return iou_from_counts(counts).nanmean(-1)


def accuracy_from_counts(counts: Tensor) -> Tensor:
    """Correct pixels among all that are not ignored: (..., 3, C) -> (...)."""
    tp, _, fn = counts.double().sum(-1).unbind(-1)
    return tp / (tp + fn)
