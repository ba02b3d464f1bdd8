"""Frozen diffusion models: encode, noise, denoise until the last layer that is read."""

from diffcorr.backbones.base import Backbone, Kind, LayerInfo, LayerSpec, StopForward
from diffcorr.backbones.unet import UNetBackbone

__all__ = ["Backbone", "Kind", "LayerInfo", "LayerSpec", "StopForward", "UNetBackbone"]
