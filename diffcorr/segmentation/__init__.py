"""Zero-shot segmentation: aggregation and merging of self-attention, baselines, and the module."""

from diffcorr.segmentation.base import MaskPrediction, SegmentationMethod, count_segments
from diffcorr.segmentation.diffseg import DiffSeg
from diffcorr.segmentation.kmeans_pixels import KMeansPixels
from diffcorr.segmentation.module import SegmentationModule
from diffcorr.segmentation.one_segment import OneSegment

__all__ = [
    "DiffSeg",
    "KMeansPixels",
    "MaskPrediction",
    "OneSegment",
    "SegmentationMethod",
    "SegmentationModule",
    "count_segments",
]
