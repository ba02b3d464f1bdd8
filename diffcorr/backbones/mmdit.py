"""Models of flow matching whose image and text share one attention (Esser et al. 2024): SD3, FLUX."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Any

from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor

from diffcorr.backbones.base import Kind
from diffcorr.backbones.joint_processor import JointAttentionProcessor
from diffcorr.backbones.transformer import TransformerBackbone


def flow_time(alpha: float) -> float:
    """The noise level of flow matching with the signal-to-noise ratio of a diffusion.

    A diffusion sees sqrt(a) x + sqrt(1 - a) n, flow matching (1 - s) x + s n (Liu et al. 2022); the
    ratios of signal and noise are the same where (1 - s)^2 / s^2 = a / (1 - a).

    Args:
        alpha: cumulative alpha a in [0, 1] of the diffusion.

    Returns:
        s in [0, 1], 1 = only noise.
    """
    signal, noise = sqrt(alpha), sqrt(1 - alpha)
    return noise / (signal + noise)


class JointBackbone(TransformerBackbone):
    """A frozen model of flow matching with joint attention.

    A timestep t in 0..999 is that of Stable Diffusion's schedule, as in the papers: it stands for the
    noise level s with the same signal-to-noise ratio (``flow_time``), and the model is told 1000 s.

    ``'cross'`` is the image-to-text block of the joint attention: probabilities out of the softmax over
    text and image, so that rows sum to less than 1. ``'self'`` is the image-to-image block, its rows
    normalised to 1.
    """

    flow = True
    time_note = "0..999 of Stable Diffusion's schedule; noise of the same signal-to-noise ratio"

    def __init__(
        self,
        transformer: Any,
        vae: AutoencoderKL,
        scheduler: DDIMScheduler,
        *,
        name: str = "mmdit",
        paper_layers: Sequence[int] | None = None,
        image_size: int | None = None,
        **texts: Any,
    ) -> None:
        super().__init__(
            transformer,
            vae,
            scheduler,
            texts,
            transformer.config["joint_attention_dim"],
            name=name,
            paper_layers=paper_layers,
            image_size=image_size,
        )

    @property
    def pooled_width(self) -> int:
        """Width of the pooled embedding."""
        return int(self.transformer.config["pooled_projection_dim"])

    def sigma(self, timestep: int) -> float:
        """Noise level s in (0, 1) for a timestep 0..999."""
        return flow_time(self.alpha(timestep))

    def add_noise(self, latents: Tensor, noise: Tensor, timestep: int) -> Tensor:
        """(1 - s) latents + s noise."""
        sigma = self.sigma(timestep)
        return (1 - sigma) * latents + sigma * noise.to(latents)

    def _processor(self) -> Any:
        return JointAttentionProcessor()

    def _reads(self, name: str, kind: Kind) -> bool | None:
        if name.endswith(".attn"):
            return True
        return False if kind == "self" else None  # attention of the image alone, in SD 3.5 medium
