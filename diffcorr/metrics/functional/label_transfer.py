"""Scores of a label map that was carried to an image: pixels right, and the object's overlap."""

from __future__ import annotations

import torch
from torch import Tensor

from diffcorr.errors import ProtocolError

METRICS = ("label_accuracy", "mask_accuracy", "mask_iou")


def label_transfer_scores(predicted: Tensor, label: Tensor) -> Tensor:
    """Three scores of one image, fractions in 0..1.

    ``label_accuracy``: the share of pixels that get the right value (label transfer accuracy, Liu et al.,
    TPAMI 2011); ``mask_accuracy``: the same of object or not (Kim et al., CVPR 2013); ``mask_iou``:
    intersection over union of the object.

    Args:
        predicted: (H, W) integers, 0 not the object.
        label: (H, W) integers, 0 not the object, negative ignored.

    Returns:
        (3,) float64 in the order of `METRICS`. The IoU of an object that neither has is 1.

    Raises:
        ProtocolError: shapes differ, values that are not integer, or no pixel to score.
    """
    if predicted.shape != label.shape or predicted.is_floating_point() or label.is_floating_point():
        raise ProtocolError(
            f"expected label maps of integers of one shape, found {tuple(predicted.shape)} and "
            f"{tuple(label.shape)}"
        )
    known = label >= 0
    if not bool(known.any()):
        raise ProtocolError("expected a label map with pixels to score, found all of them ignored")
    predicted, label = predicted[known], label[known]
    mine, there = predicted > 0, label > 0
    union = (mine | there).sum()
    iou = (mine & there).sum().double() / union if union else torch.ones((), dtype=torch.float64)
    right = [(predicted == label).double().mean(), (mine == there).double().mean(), iou]
    return torch.stack([value.to(torch.float64) for value in right])
