"""Frozen diffusion models: encode, noise, denoise until the last layer that is read."""

from diffcorr.backbones.base import Backbone, Kind, LayerInfo, LayerSpec, Needs, StopForward
from diffcorr.backbones.flux import FluxBackbone
from diffcorr.backbones.latent import LatentBackbone
from diffcorr.backbones.pixart import PixArtBackbone
from diffcorr.backbones.sd3 import SD3Backbone
from diffcorr.backbones.sdxl import SDXLBackbone
from diffcorr.backbones.unet import UNetBackbone

__all__ = [
    "Backbone",
    "FluxBackbone",
    "Kind",
    "LatentBackbone",
    "LayerInfo",
    "LayerSpec",
    "Needs",
    "PixArtBackbone",
    "SD3Backbone",
    "SDXLBackbone",
    "StopForward",
    "UNetBackbone",
]
