"""Metrics: functional maths, thin torchmetrics classes, and protocols by name."""

from diffcorr.metrics.compare import compare_masks, compare_points
from diffcorr.metrics.functional.bootstrap import Interval, paired_bootstrap
from diffcorr.metrics.pck import PCK
from diffcorr.metrics.protocols import (
    MASK_PROTOCOLS,
    POINT_PROTOCOLS,
    MaskProtocol,
    PointProtocol,
    mask_protocol,
    point_protocol,
)
from diffcorr.metrics.scoring import score_masks, score_points
from diffcorr.metrics.segmentation import SegmentationScore

__all__ = [
    "MASK_PROTOCOLS",
    "PCK",
    "POINT_PROTOCOLS",
    "Interval",
    "MaskProtocol",
    "PointProtocol",
    "SegmentationScore",
    "compare_masks",
    "compare_points",
    "mask_protocol",
    "paired_bootstrap",
    "point_protocol",
    "score_masks",
    "score_points",
]
