"""Scores of class-agnostic segments: matched to classes, counted, and averaged over classes.

A match gives every class at most one segment, so that the most pixels are right. It is made for each image,
or once for the whole data set where segment ids mean the same in all images (`match_segments` of the summed
`confusion`). Counts of images add up; IoU of a class is taken from the sums, and the mean IoU is the mean
over the classes that occur.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from diffcorr.errors import ProtocolError

Accounting = Literal["present", "diffseg", "global", "named"]
ACCOUNTINGS: tuple[Accounting, ...] = ("present", "diffseg", "global", "named")


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


def match_segments(hist_CK: Tensor, accounting: Accounting = "present") -> Tensor:
    """The class that each segment is taken for, one to one, so that the most pixels are right.

    ``present``: classes that occur are matched; a class and a segment without a common pixel never are. What
    stays without a match is predicted as no class. How segments are numbered does not matter: among equal
    solutions the choice is made by the segments' contents. ``global`` is the same for confusions summed over
    a data set.

    ``diffseg`` (the program of Tian et al., CVPR 2024): all classes are matched, also absent ones, as the
    solver meets them; where segments outnumber the classes of the image, its choice among equals decides
    which absent classes take the surplus, and that depends on the numbering.

    ``named``: nothing is matched, the id of a segment is the class that it is predicted as; ids beyond the
    classes are none.

    Args:
        hist_CK: (C, K) pixels of each class in each segment, see `confusion`.
        accounting: see above.

    Returns:
        (K,) int64, -1 for no class.
    """
    hist = hist_CK.cpu().numpy()
    num_classes, num_segments = hist.shape
    if accounting == "named":
        ids = torch.arange(num_segments, device=hist_CK.device)
        return ids.where(ids < num_classes, -1)
    class_of = np.full(num_segments, -1, dtype=np.int64)
    if accounting == "diffseg":
        padded = np.pad(hist, ((0, 0), (0, max(0, num_classes - num_segments))))
        classes, columns = linear_sum_assignment(padded, maximize=True)
        real = columns < num_segments
        class_of[columns[real]] = classes[real]
    else:
        present = np.flatnonzero(hist.sum(1))
        found = hist[present]
        order = np.lexsort(found) if found.size else np.arange(num_segments)
        rows, places = linear_sum_assignment(found[:, order], maximize=True)
        columns = order[places]
        common = found[rows, columns] > 0
        class_of[columns[common]] = present[rows[common]]
    return torch.from_numpy(class_of).to(hist_CK.device)


def counts_of_match(hist_CK: Tensor, class_of_K: Tensor) -> Tensor:
    """True positives, false positives and false negatives of each class under a match.

    Every pixel of a class that its own segment does not hold is a false negative of it, also those in
    segments without a match; every pixel of another class that its segment holds is a false positive. Pixels
    in segments without a match are false positives of no class.

    Args:
        hist_CK: (C, K) pixels of each class in each segment.
        class_of_K: (K,) class of each segment, -1 for none; no class twice.

    Returns:
        (3, C) int64: tp, fp, fn in pixels. tp + fn of a class are its pixels.
    """
    segments = (class_of_K >= 0).nonzero()[:, 0]
    classes = class_of_K[segments]
    counts = hist_CK.new_zeros(3, len(hist_CK))
    counts[0, classes] = hist_CK[classes, segments]
    counts[1, classes] = hist_CK[:, segments].sum(0) - counts[0, classes]
    counts[2] = hist_CK.sum(1) - counts[0]
    return counts


def merge_background(hist_CK: Tensor) -> Tensor:
    """All segments that are no object made one, as the program of DiffCut does with the ground truth.

    Segments are matched to the objects under the ``diffseg`` accounting; those that an object of the image
    takes are kept, all others become one segment after them (Couairon et al., NeurIPS 2024).

    Args:
        hist_CK: (C, K) pixels of each class in each segment; the last class is the background.

    Returns:
        (C, K + 1): merged segments are empty, the last one holds them; or the same (C, K) if there are none.
    """
    hist = hist_CK[:-1]
    class_of_K = match_segments(hist, "diffseg")
    assigned = class_of_K >= 0
    # an object counts as found if any assigned segment shows it, not only its own
    found = (hist[:, assigned] > 0).any(1)
    kept = assigned & found[class_of_K.clamp_min(0)]
    rest = (hist_CK * ~kept).sum(1, keepdim=True)
    return torch.cat([hist_CK * kept, rest], 1) if rest.any() else hist_CK


def counts_of_image(
    hist_CK: Tensor, accounting: Accounting = "present", background: int | None = None
) -> Tensor:
    """`counts_of_match` of one image under its own match, see `match_segments`.

    Args:
        hist_CK: (C, K) pixels of each class in each segment.
        accounting: any but ``global``.
        background: class that takes all segments that are no object, see `merge_background`.

    Returns:
        (3, C) int64: tp, fp, fn in pixels.
    """
    if background is None:
        return counts_of_match(hist_CK, match_segments(hist_CK, accounting))
    # the background last, as in the program: the order of classes decides among equal matches
    order = [c for c in range(len(hist_CK)) if c != background] + [background]
    merged = merge_background(hist_CK[order])
    counts = hist_CK.new_zeros(3, len(hist_CK))
    counts[:, order] = counts_of_match(merged, match_segments(merged, accounting))
    return counts


def class_counts(mask: Tensor, label: Tensor, num_classes: int, accounting: Accounting = "present") -> Tensor:
    """`counts_of_image` of a mask.

    Args:
        mask: (H, W) integer segment ids >= 0.
        label: (H, W) integer classes; anything outside of 0..num_classes-1 is ignored.
        num_classes: C.
        accounting: any but ``global``, see `match_segments`.

    Returns:
        (3, C) int64: tp, fp, fn in pixels. tp + fn of a class are its pixels.

    Raises:
        ProtocolError: as `confusion`.
    """
    return counts_of_image(confusion(mask, label, num_classes), accounting)


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
