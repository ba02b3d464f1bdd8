"""Which attention maps are read, and how their heads become one map."""

from diffcorr.attention.base import AttentionRead, AttentionVariant
from diffcorr.attention.capture import capture, resize_maps
from diffcorr.attention.mean import MeanAttention
from diffcorr.attention.recorders import AttentionMap
from diffcorr.attention.reference import ReferenceAttention

__all__ = [
    "AttentionMap",
    "AttentionRead",
    "AttentionVariant",
    "MeanAttention",
    "ReferenceAttention",
    "capture",
    "resize_maps",
]
