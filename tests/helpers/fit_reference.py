"""Prompt fitting and transfer, one item at a time, written out plainly."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from diffcorr.backbones import UNetBackbone


def token_maps(
    backbone: UNetBackbone, indices: list[int], latents: Tensor, t: int, embeds: Tensor
) -> list[Tensor]:
    """Maps (h, w) of token 1, all heads averaged, from a whole forward pass with hooks."""
    names = [layer.name for layer in backbone.layers("cross") if layer.index in indices]
    found: dict[str, Tensor] = {}

    def keep(name: str):
        def hook(module, args, kwargs, output):
            query = module.head_to_batch_dim(module.to_q(args[0]))
            key = module.head_to_batch_dim(module.to_k(kwargs["encoder_hidden_states"]))
            probs = module.get_attention_scores(query, key)[:, :, 1].mean(0)
            side = math.isqrt(len(probs))
            found[name] = probs.view(side, side)

        return hook

    modules = dict(backbone.unet.named_modules())
    handles = [modules[name].register_forward_hook(keep(name), with_kwargs=True) for name in names]
    backbone.unet(latents, t, embeds)
    for handle in handles:
        handle.remove()
    return [found[name] for name in names]


def upscale(map_hw: Tensor, side: int) -> Tensor:
    return F.interpolate(map_hw[None, None], size=(side, side), mode="bilinear")[0, 0]


def crop_latent(backbone: UNetBackbone, image: np.ndarray, x: int, y: int, side: int, flip: bool) -> Tensor:
    pixels = torch.from_numpy(image).double().permute(2, 0, 1)[None] / 127.5 - 1
    pixels = pixels.float().to(backbone.dtype)[:, :, y : y + side, x : x + side]
    pixels = F.interpolate(pixels, size=(backbone.image_size,) * 2, mode="bilinear")
    if flip:
        pixels = pixels.flip(-1)
    return backbone.vae.encode(pixels).latent_dist.mean * 0.18215


def fit_one(backbone, image, point, steps, lr, sigma, side, draws, indices, t, resolution, per_layer, flips):
    """Embedding (P, D) and losses of one item; ``draws`` = (initial, crops (steps, 2), noises)."""
    initial, crops, noises = draws
    embeds = initial.to(backbone.dtype)[None].clone().requires_grad_()
    m, v = torch.zeros_like(embeds), torch.zeros_like(embeds)
    losses = []
    for step in range(steps):
        x, y = crops[step].tolist()
        with torch.no_grad():
            latent = crop_latent(backbone, image, x, y, side, flips[step])
        alpha = backbone.alphas_cumprod[t]
        noisy = alpha.sqrt() * latent + (1 - alpha).sqrt() * noises[step][None].to(latent)
        maps = [upscale(a, resolution) for a in token_maps(backbone, indices, noisy, t, embeds)]
        centre_x = (point[0] - x) / side * resolution
        centre_y = (point[1] - y) / side * resolution
        if flips[step]:
            centre_x = resolution - centre_x
        target = torch.zeros(resolution, resolution, dtype=torch.float64)
        for row in range(resolution):
            for column in range(resolution):
                distance = (column + 0.5 - centre_x) ** 2 + (row + 0.5 - centre_y) ** 2
                target[row, column] = math.exp(-distance / (2 * (sigma * resolution) ** 2))
        if per_layer:
            loss = sum(((a - target) ** 2).mean() for a in maps) / len(maps)
        else:
            loss = ((sum(maps) / len(maps) - target) ** 2).mean()
        (gradient,) = torch.autograd.grad(loss, embeds)
        losses.append(float(loss.detach()))
        with torch.no_grad():  # Adam, written out (Kingma & Ba 2015, algorithm 1)
            m = 0.9 * m + 0.1 * gradient
            v = 0.999 * v + 0.001 * gradient**2
            m_hat, v_hat = m / (1 - 0.9 ** (step + 1)), v / (1 - 0.999 ** (step + 1))
            embeds -= lr * m_hat / (v_hat.sqrt() + 1e-8)
    return embeds.detach()[0], losses


def image_of(seed: int, width: int, height: int) -> np.ndarray:
    """A smooth random picture."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
