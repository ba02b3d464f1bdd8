"""What a backbone draws, and where it looks for each word of a caption."""

from __future__ import annotations

from textwrap import shorten
from typing import Any

from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from omegaconf import DictConfig

from diffcorr.attention.words import word_maps
from diffcorr.data.partworld import PartWorldImages
from diffcorr.pretraining.export import as_pipeline, sample
from diffcorr.reports import draw_sheet, draw_word_maps, log_figure
from diffcorr.runs.common import Run


def draw_samples(config: DictConfig) -> None:
    """A sheet of generated pictures for captions that training never saw, and maps of a caption's words."""
    with Run(config) as run:
        if run.processes.is_main:
            _draw(run)


def _draw(run: Run) -> None:
    config = run.config
    backbone: Any = run.backbone()
    loggers = [run.loggers] if run.loggers else []
    held_out = PartWorldImages("test", max(config.num_samples, 1))
    captions = [held_out[i]["caption"] for i in range(config.num_samples)]
    pipeline: StableDiffusionPipeline = as_pipeline(
        backbone.vae, backbone.unet, backbone.text_encoder, backbone.tokenizer
    )
    images = sample(pipeline, captions, config.seed, config.sampling_steps, config.guidance)
    title = f"{backbone.name}: generated from captions, seed {config.seed}"
    log_figure(loggers, "samples", draw_sheet(images, captions, title=title), None, run.figures)
    for i in range(config.num_word_maps):
        shown = held_out[i]
        words, maps = word_maps(
            backbone,
            shown["image"],
            shown["caption"],
            run.variant(),
            timestep=config.timestep,
            num_draws=config.num_draws,
            seed=config.seed,
        )
        figure = draw_word_maps(
            shown["image"], words, maps.numpy(), title=shorten(shown["caption"], 80, placeholder=" ...")
        )
        log_figure(loggers, f"words/{shown['image_id']}", figure, None, run.figures)
