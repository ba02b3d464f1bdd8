"""Stage two: text-conditional diffusion on latents, with the noise schedule of Stable Diffusion 1.x."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning
import torch
import torch.nn.functional as F
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from diffcorr.pretraining.autoencoder import warm_cosine


def sd_scheduler() -> DDIMScheduler:
    """Scaled-linear betas 0.00085..0.012 over 1000 steps, epsilon prediction, as in SD 1.x."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="epsilon",
    )


class DiffusionModule(lightning.LightningModule):
    """Trains a ``UNet2DConditionModel`` together with a small ``CLIPTextModel``.

    Args:
        unet: config of the U-Net (diffusers' names).
        text_encoder: config of the text encoder (transformers' names).
        empty_prompt: (P,) token ids of the empty prompt, for classifier-free guidance.
        lr: peak learning rate of AdamW.
        max_steps: length of the schedule in steps.
        prompt_dropout: share of prompts that are replaced by the empty one.
        snr_gamma: clamp of the loss weight min(SNR, gamma) / SNR (Hang et al. 2023, equation 8); 0: none.
        noisy_emphasis: where the SNR is below 1, the weight is multiplied by SNR to minus this power.
            In small latents the colour of a large area can be read from the noisy input at almost
            every timestep; only the noisiest make the model ask its prompt.
    """

    def __init__(
        self,
        unet: Mapping[str, Any],
        text_encoder: Mapping[str, Any],
        empty_prompt: Tensor,
        lr: float,
        max_steps: int,
        prompt_dropout: float = 0.1,
        snr_gamma: float = 5.0,
        noisy_emphasis: float = 0.0,
    ) -> None:
        super().__init__()
        self.unet = UNet2DConditionModel(**unet)
        self.text_encoder = CLIPTextModel(CLIPTextConfig(**text_encoder))
        self.scheduler = sd_scheduler()
        self.empty_prompt: Tensor
        self.alphas: Tensor
        self.register_buffer("empty_prompt", empty_prompt.long())
        self.register_buffer("alphas", self.scheduler.alphas_cumprod.clone())
        self.lr, self.max_steps = lr, max_steps
        self.prompt_dropout = prompt_dropout
        self.snr_gamma, self.noisy_emphasis = snr_gamma, noisy_emphasis

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        """Predict the noise of ``latents`` (B, c, h, w) under ``tokens`` (B, P); the loss."""
        latents = batch["latents"].float()
        tokens = batch["tokens"].long()
        drop = torch.rand(len(tokens), device=tokens.device) < self.prompt_dropout
        prompt = self.text_encoder(torch.where(drop[:, None], self.empty_prompt, tokens)).last_hidden_state
        t = torch.randint(0, len(self.alphas), (len(latents),), device=latents.device)
        noise = torch.randn_like(latents)
        alpha = self.alphas[t][:, None, None, None]
        noisy = alpha.sqrt() * latents + (1 - alpha).sqrt() * noise
        predicted = self.unet(noisy, t, prompt).sample
        error = F.mse_loss(predicted.float(), noise, reduction="none").mean((1, 2, 3))
        loss = (self.weight((alpha / (1 - alpha)).flatten()) * error).mean()
        self.log("diffusion/loss", loss, prog_bar=True)
        self.log("diffusion/noise_error", error.mean())
        return loss

    def weight(self, snr: Tensor) -> Tensor:
        """Weight of the error in the noise at each signal-to-noise ratio."""
        clamped = snr.clamp(max=self.snr_gamma) / snr if self.snr_gamma else torch.ones_like(snr)
        return clamped * snr.clamp(max=1) ** -self.noisy_emphasis

    def configure_optimizers(self) -> Any:
        """AdamW with warm-up and cosine decay, stepped every batch."""
        return warm_cosine(self.parameters(), self.lr, 0.01, self.max_steps)
