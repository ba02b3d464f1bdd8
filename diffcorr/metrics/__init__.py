"""Metrics: functional maths, thin torchmetrics classes, and protocols by name."""

from diffcorr.metrics.breakdowns import (
    CurvePoint,
    Row,
    breakdown,
    breakdowns_of_pairs,
    curve_area,
    pck_curve,
)
from diffcorr.metrics.columns import PairColumns, pair_columns
from diffcorr.metrics.compare import Estimate, Resampled, compare_masks, compare_points, resample_scores
from diffcorr.metrics.functional.bootstrap import Interval, paired_bootstrap
from diffcorr.metrics.matching import Handling, Matched, match_points, match_table
from diffcorr.metrics.pck import PCK
from diffcorr.metrics.protocols import (
    MASK_PROTOCOLS,
    POINT_PROTOCOLS,
    MaskProtocol,
    PointProtocol,
    mask_protocol,
    point_protocol,
)
from diffcorr.metrics.scoring import correct_of_points, score_masks, score_matched, score_points
from diffcorr.metrics.segmentation import SegmentationScore

__all__ = [
    "MASK_PROTOCOLS",
    "PCK",
    "POINT_PROTOCOLS",
    "CurvePoint",
    "Estimate",
    "Handling",
    "Interval",
    "MaskProtocol",
    "Matched",
    "PairColumns",
    "PointProtocol",
    "Resampled",
    "Row",
    "SegmentationScore",
    "breakdown",
    "breakdowns_of_pairs",
    "compare_masks",
    "compare_points",
    "correct_of_points",
    "curve_area",
    "mask_protocol",
    "match_points",
    "match_table",
    "pair_columns",
    "paired_bootstrap",
    "pck_curve",
    "point_protocol",
    "resample_scores",
    "score_masks",
    "score_matched",
    "score_points",
]
