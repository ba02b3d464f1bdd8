"""Fit prompt embeddings until cross-attention peaks on the query (Hedlin et al. 2023, section 3.2).

A pure loop: no trainer, no files.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import nan
from typing import NamedTuple

import torch
from torch import Tensor

from diffcorr.attention.base import AttentionVariant
from diffcorr.backbones.base import Backbone
from diffcorr.correspondence.config import FitConfig
from diffcorr.correspondence.crops import LatentBank, crop_side
from diffcorr.correspondence.draws import Draws
from diffcorr.correspondence.pack import PackFit, fit_batches
from diffcorr.correspondence.prompts import FitItem, Prompt, compose_packs, own_prompt
from diffcorr.types import UInt8Image


class FitResult(NamedTuple):
    """Fitted embeddings (N, P, D) and their loss curves (steps, N), in the order of the prompts."""

    embeddings: Tensor
    losses: Tensor


class FitProgress(NamedTuple):
    """How far a fit is.

    Attributes:
        done: Adam steps of single prompts that are behind it, those that are not needed among them.
        total: of all.
        loss: mean over the pack's prompts at its last step; nan where nothing is optimised.
    """

    done: int
    total: int
    loss: float


OnProgress = Callable[[FitProgress], None]
"""Told after every step; what it raises ends the fit."""


def fit_prompts(
    backbone: Backbone,
    prompts: Sequence[Prompt | FitItem],
    images: Mapping[str, UInt8Image],
    config: FitConfig,
    variant: AttentionVariant,
    draws: Sequence[Draws] | None = None,
    progress: OnProgress | None = None,
) -> FitResult:
    """Fit all prompts, pack by pack; the result does not depend on the packs.

    Args:
        backbone: frozen; its weights are not touched.
        prompts: what to fit: items that share with none, or what ``compose_prompts`` gives.
        images: RGB image of each query by ``image_id``, any size.
        config: everything that can be chosen.
        variant: how heads become a map.
        draws: random numbers of each prompt, in their order; None = from (seed, key).
        progress: told after every step of a pack; what it raises ends the fit.

    Raises:
        ImageError: a query outside of its image.
        UnknownNameError: a layer that the backbone does not have.
    """
    config.check(backbone)
    wanted = [own_prompt(p) if isinstance(p, FitItem) else p for p in prompts]
    if not wanted:
        return FitResult(torch.zeros(0, *backbone.embedding_shape), torch.zeros(config.steps, 0))
    place = {prompt.key: index for index, prompt in enumerate(wanted)}
    bank = LatentBank(backbone, crop_side(config.side or backbone.image_size, config.crop))
    batches = fit_batches(backbone, config, variant)
    embeddings: dict[int, Tensor] = {}
    curves: dict[int, Tensor] = {}
    per_prompt = max(1, config.steps)
    total, before = per_prompt * len(wanted), 0
    for members in compose_packs(wanted, batches.size):
        own = [draws[place[prompt.key]] for prompt in members] if draws is not None else None
        pack = PackFit(backbone, members, images, config, variant, own, bank, batches)
        optimizer = pack.optimizer()
        for step in range(config.steps):
            if not pack.active:
                break
            optimizer.zero_grad()
            losses = pack.backward(step)
            optimizer.step()
            pack.settle()
            if progress and step + 1 < config.steps:
                progress(FitProgress(before + (step + 1) * len(members), total, float(losses.nanmean())))
        before += per_prompt * len(members)
        losses = pack.curves
        if progress:
            progress(FitProgress(before, total, float(losses[-1].nanmean()) if len(losses) else nan))
        for row, prompt in enumerate(members):
            embeddings[place[prompt.key]] = pack.embeddings.detach()[row]
            curves[place[prompt.key]] = losses[:, row]
    order = range(len(wanted))
    return FitResult(torch.stack([embeddings[i] for i in order]), torch.stack([curves[i] for i in order], 1))
