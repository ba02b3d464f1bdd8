"""From captioned images to a diffusers folder: the stages of pretraining, each resumable.

A stage that has finished left its result in the work folder and is not run again; one that was cut off
goes on from its last checkpoint. Starting the same command again is all that is needed.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from lightning.pytorch.callbacks import Callback, EMAWeightAveraging, ModelCheckpoint
from transformers import CLIPTokenizer

from diffcorr.data.image_cache import CaptionedImages, ImageCache
from diffcorr.errors import BackboneError
from diffcorr.pretraining.autoencoder import AutoencoderModule, encode_all
from diffcorr.pretraining.batches import shuffled
from diffcorr.pretraining.diffusion import DiffusionModule
from diffcorr.pretraining.export import as_pipeline, export
from diffcorr.pretraining.tokenizer import train_tokenizer

log = logging.getLogger(__name__)
TrainerMaker = Callable[..., lightning.Trainer]


@dataclass
class StageConfig:
    """How long and how hard a stage trains."""

    max_steps: int
    batch_size: int
    lr: float
    extra: Mapping[str, Any] = field(default_factory=dict)  # further arguments of the stage's module


class Pretraining:
    """Trains a small text-conditional latent diffusion model on any captioned images.

    Args:
        data: captioned images.
        work_dir: caches, checkpoints and stage results.
        export_dir: where the diffusers folder is written.
        image_size: side of the training images in pixels.
        vae: config of the autoencoder (diffusers' names), without sizes that follow from others.
        unet: config of the U-Net (diffusers' names).
        text_encoder: config of the text encoder (transformers' names).
        tokenizer: ``vocab_size`` and ``max_length``.
        autoencoder_stage: how the first stage trains.
        diffusion_stage: how the second stage trains; ``ema_decay`` among its extras.
        init_from: a diffusers folder to go on from: its autoencoder and tokenizer are taken as they are, its
            U-Net and text encoder are trained further; their configs have to be the ones given here.
        seed: of weights, order and noise.
        num_workers: processes that draw or decode images.
        checkpoint_minutes: time between checkpoints.
    """

    def __init__(
        self,
        data: CaptionedImages,
        work_dir: str,
        export_dir: str,
        image_size: int,
        vae: Mapping[str, Any],
        unet: Mapping[str, Any],
        text_encoder: Mapping[str, Any],
        tokenizer: Mapping[str, int],
        autoencoder_stage: StageConfig,
        diffusion_stage: StageConfig,
        init_from: str | None = None,
        seed: int = 0,
        num_workers: int = 2,
        checkpoint_minutes: float = 5,
    ) -> None:
        self.data, self.work, self.export_dir = data, Path(work_dir), Path(export_dir)
        self.image_size, self.vae_config, self.unet_config = image_size, dict(vae), dict(unet)
        self.text_config, self.tokenizer_config = dict(text_encoder), dict(tokenizer)
        self.stages = {"autoencoder": autoencoder_stage, "diffusion": diffusion_stage}
        self.seed, self.num_workers, self.checkpoint_minutes = seed, num_workers, checkpoint_minutes
        self.init_from = Path(init_from) if init_from else None
        if self.init_from and not (self.init_from / "model_index.json").is_file():
            raise BackboneError(f"expected a diffusers folder in init_from, found none at {init_from}")
        self.report: dict[str, Any] = {"seed": seed}
        if self.init_from:
            self.report["init_from"] = self.init_from.name

    def run(
        self, make_trainer: TrainerMaker, callbacks: Callable[[Pretraining], list[Callback]] | None = None
    ) -> Path:
        """Run all stages and export.

        Args:
            make_trainer: gives a Trainer from ``callbacks``, ``max_steps`` and ``enable_checkpointing``.
            callbacks: further callbacks of the diffusion stage, such as sample sheets.

        Returns:
            The exported diffusers folder.
        """
        cache = ImageCache(self.work / "images", self.data, self.image_size, self.num_workers)
        self.tokenizer = self._tokenizer(cache)
        self.vae = self._autoencoder(cache, make_trainer)
        latents = self._latents(cache)
        tokens = self._tokens(cache)
        module = self._diffusion(make_trainer, latents, tokens, callbacks(self) if callbacks else [])
        export(self.pipeline(module), self.export_dir)
        (self.export_dir / "training.json").write_text(json.dumps(self.report, indent=2) + "\n")
        return self.export_dir

    def pipeline(self, module: DiffusionModule) -> StableDiffusionPipeline:
        """Text-to-image with the module's present weights."""
        vae: Any = self.vae
        vae.to(module.device)
        return as_pipeline(vae, module.unet, module.text_encoder, self.tokenizer)

    def _tokenizer(self, cache: ImageCache) -> CLIPTokenizer:
        if self.init_from:
            return CLIPTokenizer.from_pretrained(self.init_from / "tokenizer")
        folder = self.work / "tokenizer"
        if (folder / "tokenizer_config.json").is_file():
            return CLIPTokenizer.from_pretrained(folder)
        return train_tokenizer(cache.captions[:20_000], folder, **self.tokenizer_config)

    def _autoencoder(self, cache: ImageCache, make_trainer: TrainerMaker) -> AutoencoderKL:
        folder = self.init_from / "vae" if self.init_from else self.work / "vae"
        if not (folder / "config.json").is_file():
            stage = self.stages["autoencoder"]
            torch.manual_seed(self.seed)
            config = {"sample_size": self.image_size, **self.vae_config}
            module = AutoencoderModule(config, lr=stage.lr, max_steps=stage.max_steps, **stage.extra)
            self._fit("autoencoder", module, {"image": cache.images}, make_trainer, [])
            module.vae.save_pretrained(folder)
        return AutoencoderKL.from_pretrained(folder, low_cpu_mem_usage=False).float().eval()

    def _latents(self, cache: ImageCache) -> np.ndarray:
        path = self.work / "latents.npy"
        if not path.is_file():
            log.info("encoding %d images", len(cache))
            device = "cuda" if torch.cuda.is_available() else "cpu"
            vae: Any = self.vae
            latents, factor = encode_all(vae.to(device), cache.images)
            vae.to("cpu")
            if self.init_from:
                given = float(self.vae.config["scaling_factor"])
                latents, factor = (latents.float() * (given / factor)).half(), given
            (self.work / "scaling_factor.json").write_text(json.dumps(factor))
            with open(path.with_suffix(".part"), "wb") as file:
                np.save(file, latents.numpy(), allow_pickle=False)
            path.with_suffix(".part").replace(path)
        self.vae.register_to_config(
            scaling_factor=json.loads((self.work / "scaling_factor.json").read_text())
        )
        return np.load(path, mmap_mode="r", allow_pickle=False)

    def _ids(self, texts: list[str]) -> np.ndarray:
        kwargs = {"padding": "max_length", "truncation": True, "max_length": self.tokenizer.model_max_length}
        return np.asarray(self.tokenizer(texts, **kwargs).input_ids, dtype=np.int16)

    def _tokens(self, cache: ImageCache) -> np.ndarray:
        path = self.work / "tokens.npy"
        if not path.is_file():
            ids = [self._ids(list(cache.captions[i : i + 1000])) for i in range(0, len(cache), 1000)]
            np.save(path, np.concatenate(ids), allow_pickle=False)
        return np.load(path, allow_pickle=False)

    def _diffusion(
        self, make_trainer: TrainerMaker, latents: np.ndarray, tokens: np.ndarray, callbacks: list[Callback]
    ) -> DiffusionModule:
        stage = self.stages["diffusion"]
        torch.manual_seed(self.seed)
        sizes = {
            "sample_size": latents.shape[-1],
            "in_channels": latents.shape[1],
            "out_channels": latents.shape[1],
        }
        special = {"bos_token_id": self.tokenizer.bos_token_id, "eos_token_id": self.tokenizer.eos_token_id}
        text = {
            **self.text_config,
            **special,
            "pad_token_id": self.tokenizer.pad_token_id,
            "vocab_size": len(self.tokenizer),
            "max_position_embeddings": self.tokenizer.model_max_length,
        }
        extra = dict(stage.extra)
        ema = EMAWeightAveraging(decay=extra.pop("ema_decay", 0.999), update_every_n_steps=1)
        unet = {**sizes, "cross_attention_dim": text["hidden_size"], **self.unet_config}
        empty = torch.as_tensor(self._ids([""])[0])
        module = DiffusionModule(unet, text, empty, lr=stage.lr, max_steps=stage.max_steps, **extra)
        if self.init_from:
            start = StableDiffusionPipeline.from_pretrained(self.init_from, safety_checker=None)
            module.unet.load_state_dict(start.unet.state_dict())
            module.text_encoder.load_state_dict(start.text_encoder.state_dict())
        self._fit(
            "diffusion", module, {"latents": latents, "tokens": tokens}, make_trainer, [ema, *callbacks]
        )
        return module.eval()

    def _fit(
        self,
        name: str,
        module: lightning.LightningModule,
        arrays: Mapping[str, Any],
        make_trainer: TrainerMaker,
        callbacks: list[Callback],
    ) -> None:
        stage, folder = self.stages[name], self.work / name
        checkpoint = ModelCheckpoint(
            folder,
            filename="{step}",
            save_last=True,
            save_top_k=1,
            train_time_interval=timedelta(minutes=self.checkpoint_minutes),
        )
        last = folder / "last.ckpt"
        resumed = last.is_file()
        done = torch.load(last, weights_only=True, map_location="cpu")["global_step"] if resumed else 0
        # A resumed run draws a new order, so that it does not see the same first batches twice.
        loader = shuffled(arrays, stage.batch_size, stage.max_steps, self.seed + done)
        trainer = make_trainer(
            callbacks=[checkpoint, *callbacks], max_steps=stage.max_steps, enable_checkpointing=True
        )
        start = time.perf_counter()
        trainer.fit(module, loader, ckpt_path=str(last) if resumed else None, weights_only=True)
        self.report[name] = {
            "steps": trainer.global_step,
            "resumed_at": done,
            "batch_size": stage.batch_size,
            "images": len(next(iter(arrays.values()))),
            "minutes": round((time.perf_counter() - start) / 60, 1),
            "parameters": sum(p.numel() for p in module.parameters()),
            **{k: round(float(v), 5) for k, v in trainer.callback_metrics.items()},
        }
