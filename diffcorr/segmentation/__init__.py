"""Zero-shot segmentation: aggregation and merging of self-attention, groupers, baselines, and the module."""

from diffcorr.segmentation.base import MaskPrediction, SegmentationMethod, count_segments
from diffcorr.segmentation.diffseg import DiffSeg
from diffcorr.segmentation.grouper import AttentionGrouper
from diffcorr.segmentation.kmeans_attention import KMeansAttention
from diffcorr.segmentation.kmeans_pixels import KMeansPixels
from diffcorr.segmentation.module import SegmentationModule
from diffcorr.segmentation.ncut import NCut
from diffcorr.segmentation.one_segment import OneSegment
from diffcorr.segmentation.reader import Graph
from diffcorr.segmentation.word_labels import WordLabels

__all__ = [
    "AttentionGrouper",
    "DiffSeg",
    "Graph",
    "KMeansAttention",
    "KMeansPixels",
    "MaskPrediction",
    "NCut",
    "OneSegment",
    "SegmentationMethod",
    "SegmentationModule",
    "WordLabels",
    "count_segments",
]
