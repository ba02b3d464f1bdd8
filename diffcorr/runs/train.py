"""What train.py does: fit prompt embeddings, or train the embedded model."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning import Callback, LightningModule, Trainer
from matplotlib.figure import Figure
from omegaconf import DictConfig

from diffcorr.config import instantiate
from diffcorr.data.partworld import PartWorldImages
from diffcorr.pretraining.export import sample
from diffcorr.pretraining.recipe import Pretraining
from diffcorr.reports import FigureCallback, draw_sheet
from diffcorr.runs.common import Run
from diffcorr.runs.correspondence import fitted_method, load_pairs

log = logging.getLogger(__name__)


def fit(config: DictConfig) -> Path:
    """Fit every source query of the configured pairs and store the embeddings.

    Returns:
        The folder of the stored embeddings, which eval.py finds by itself.

    Raises:
        DiffcorrError: the configured method fits nothing.
    """
    with Run(config) as run:
        method = fitted_method(run, load_pairs(config))
    folder: Path = method.embeddings.folder  # type: ignore[attr-defined]
    log.info("embeddings are in %s", folder)
    return folder


def pretrain(config: DictConfig) -> Path:
    """Train a small diffusion model on captioned images.

    Returns:
        The exported diffusers folder.
    """
    run = Run(config, collectives=True)
    recipe: Pretraining = instantiate(config.pretraining, _convert_="all")

    def make_trainer(**kwargs: Any) -> Trainer:
        callbacks = kwargs.pop("callbacks")
        return run.joint_trainer(callbacks=callbacks, max_epochs=1, **kwargs)

    return recipe.run(make_trainer, sample_sheets(run, config.sheet_every_n_steps))


def sample_sheets(run: Run, every_n_steps: int) -> Callable[[Pretraining], list[Callback]]:
    """A callback that draws what the model makes of the first captions, as training goes on."""

    def callbacks(recipe: Pretraining) -> list[Callback]:
        captions = [recipe.data[i]["caption"] for i in range(min(12, len(recipe.data)))]
        if isinstance(recipe.data, PartWorldImages):
            held_out = PartWorldImages("val", 12)
            captions = [held_out[i]["caption"] for i in range(12)]

        def draw(trainer: Trainer, module: LightningModule) -> Figure:
            with torch.autocast(module.device.type, enabled=False):
                images = sample(recipe.pipeline(module), captions, seed=0)  # type: ignore[arg-type]
            return draw_sheet(images, captions, title=f"step {trainer.global_step}")

        return [FigureCallback("samples", draw, run.figures, every_n_steps)]

    return callbacks
