"""The metrics' maths, without state."""

from diffcorr.metrics.functional.bootstrap import Interval, paired_bootstrap
from diffcorr.metrics.functional.pck import correct_points, pck_per_pair
from diffcorr.metrics.functional.segmentation import (
    accuracy_from_counts,
    class_counts,
    confusion,
    counts_of_image,
    counts_of_match,
    iou_from_counts,
    match_segments,
    mean_iou_from_counts,
)

__all__ = [
    "Interval",
    "accuracy_from_counts",
    "class_counts",
    "confusion",
    "correct_points",
    "counts_of_image",
    "counts_of_match",
    "iou_from_counts",
    "match_segments",
    "mean_iou_from_counts",
    "paired_bootstrap",
    "pck_per_pair",
]
