"""Where features come from that a matcher compares: one file each."""

from diffcorr.correspondence.features.base import FeatureSource, cosine_maps, sample
from diffcorr.correspondence.features.fused import FusedFeatures
from diffcorr.correspondence.features.unet import UNetFeatures
from diffcorr.correspondence.features.vgg import VGGFeatures
from diffcorr.correspondence.features.vit import ViTFeatures

__all__ = [
    "FeatureSource",
    "FusedFeatures",
    "UNetFeatures",
    "VGGFeatures",
    "ViTFeatures",
    "cosine_maps",
    "sample",
]
