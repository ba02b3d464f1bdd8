"""What needs both halves: labels that agree across images, and masks carried from one image to others."""

from diffcorr.joint.carry import LabelCarrier
from diffcorr.joint.carry_features import CarryFeatures
from diffcorr.joint.clusters import ChanceClusters, FeatureClusters, SegmentClustering
from diffcorr.joint.copy_label import CopyLabel
from diffcorr.joint.module import CarryModule

__all__ = [
    "CarryFeatures",
    "CarryModule",
    "ChanceClusters",
    "CopyLabel",
    "FeatureClusters",
    "LabelCarrier",
    "SegmentClustering",
]
