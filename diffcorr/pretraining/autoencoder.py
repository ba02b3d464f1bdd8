"""Stage one: a KL autoencoder from images to latents (Rombach et al. 2022, section 3.1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning
import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor


def to_unit(images_uint8: Tensor) -> Tensor:
    """(B, H, W, 3) bytes to (B, 3, H, W) in [-1, 1]."""
    return images_uint8.permute(0, 3, 1, 2).contiguous().float() / 127.5 - 1


def reconstruction_loss(images: Tensor, decoded: Tensor) -> Tensor:
    """Absolute error of the pixels and of their differences to the right and below, which keeps edges."""
    error = decoded - images
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return error.abs().mean() + 0.5 * edges


class AutoencoderModule(lightning.LightningModule):
    """Trains an ``AutoencoderKL`` on batches of images.

    Args:
        model: config of the autoencoder (diffusers' names).
        lr: peak learning rate of AdamW; linear warm-up over 200 steps, cosine to zero.
        kl_weight: weight of the KL term, a mean over latent values.
        max_steps: length of the schedule in steps.
    """

    def __init__(self, model: Mapping[str, Any], lr: float, kl_weight: float, max_steps: int) -> None:
        super().__init__()
        self.vae = AutoencoderKL(**model)
        self.lr, self.kl_weight, self.max_steps = lr, kl_weight, max_steps

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Reconstruct a batch with ``image`` (B, H, W, 3) uint8; the loss."""
        images = to_unit(batch["image"])
        posterior = self.vae.encode(images).latent_dist
        decoded = self.vae.decode(posterior.sample()).sample
        reconstruction = reconstruction_loss(images, decoded.float())
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        loss = reconstruction + self.kl_weight * kl
        mse = F.mse_loss(decoded.detach().float().clamp(-1, 1), images) / 4
        self.log_dict({"autoencoder/loss": loss, "autoencoder/kl": kl})
        self.log("autoencoder/psnr", -10 * torch.log10(mse), prog_bar=True)
        return loss

    def configure_optimizers(self) -> Any:
        """AdamW with warm-up and cosine decay, stepped every batch."""
        return warm_cosine(self.vae.parameters(), self.lr, 0.0, self.max_steps)


def warm_cosine(parameters: Any, lr: float, weight_decay: float, max_steps: int) -> Any:
    """AdamW under a linear warm-up of 200 steps and a cosine to zero at ``max_steps``."""
    optimizer = torch.optim.AdamW(parameters, lr=lr, betas=(0.9, 0.99), weight_decay=weight_decay)
    warm = torch.optim.lr_scheduler.LinearLR(optimizer, 1e-3, total_iters=min(200, max(1, max_steps // 10)))
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max_steps)
    schedule = torch.optim.lr_scheduler.ChainedScheduler([warm, cosine])
    return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


@torch.no_grad()
def encode_all(vae: AutoencoderKL, images: Any, batch_size: int = 250) -> tuple[Tensor, float]:
    """Latent means of all images, and the factor that brings them to unit deviation.

    Args:
        vae: the trained autoencoder.
        images: (N, H, W, 3) uint8 array, may be memory-mapped.
        batch_size: images encoded at once.

    Returns:
        Scaled latents (N, c, h, w) in fp16, and the scaling factor.
    """
    vae.eval()
    device = next(vae.parameters()).device
    parts = []
    for start in range(0, len(images), batch_size):
        batch = torch.as_tensor(images[start : start + batch_size].copy(), device=device)
        # bf16 halves the time; its rounding is far below the spread of the posterior
        with torch.autocast(device.type, torch.bfloat16):
            parts.append(vae.encode(to_unit(batch)).latent_dist.mean.half().cpu())
    latents = torch.cat(parts)
    factor = 1.0 / float(latents[:5000].float().std())
    return (latents.float() * factor).half(), factor
