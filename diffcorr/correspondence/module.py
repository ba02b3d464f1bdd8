"""Prompt fitting on Lightning's trainer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from lightning import LightningModule
from torch import nn

from diffcorr.attention.base import AttentionVariant
from diffcorr.backbones.base import Backbone
from diffcorr.correspondence.config import FitConfig
from diffcorr.correspondence.crops import LatentBank, crop_side
from diffcorr.correspondence.pack import PackFit, resolve_pack_size
from diffcorr.correspondence.predictor import Embeddings
from diffcorr.correspondence.prompts import FitItem, Prompt, compose_packs, own_prompt
from diffcorr.memory import Batches
from diffcorr.types import UInt8Image

PackStep = tuple[int, int]
"""(index of the pack, step of its fit)."""


class PackSteps:
    """All steps of the packs of one process: pack after pack, each from its first step to its last.

    Packs are shared out whole, every ``world_size``-th to a process. No ``DataLoader``, so that no
    sampler of a trainer repeats or splits packs.
    """

    def __init__(self, num_packs: int, num_steps: int, rank: int = 0, world_size: int = 1) -> None:
        self.packs = range(rank, num_packs, world_size)
        self.num_steps = num_steps

    def __len__(self) -> int:
        return len(self.packs) * self.num_steps

    def __iter__(self) -> Iterator[PackStep]:
        for pack in self.packs:
            for step in range(self.num_steps):
                yield pack, step


class PromptFitModule(LightningModule):
    """Fits all items in one ``trainer.fit``; the maths is ``PackFit``, which needs no trainer.

    One batch is one Adam step of one pack, so that everything of the trainer means what its user
    expects: the progress bar counts Adam steps, loggers get the loss of every step, ``max_steps``,
    ``limit_train_batches`` and callbacks work. A run of the trainer for each pack would build
    loggers, callbacks and bars anew for each; a batch that runs a pack's whole loop would hide the
    loss curve. Optimisation is manual because the parameter is exchanged with the pack:
    ``embeddings`` (N, P, D) is the present pack's and the only one that receives a gradient.

    A finished pack goes to the store at once; after an interruption, fit what is still missing.
    One epoch is the whole work: the trainer is told to stop after it.

    Args:
        backbone: frozen.
        prompts: what to fit, e.g. ``PromptFit.missing``; may be empty.
        images: RGB image of each query by ``image_id``, any size; may load on access.
        config: how to fit.
        variant: how heads become a map.
        store: receives every finished embedding.
    """

    backbone: Backbone

    def __init__(
        self,
        backbone: Backbone,
        prompts: Sequence[Prompt | FitItem],
        images: Mapping[str, UInt8Image],
        config: FitConfig,
        variant: AttentionVariant,
        store: Embeddings,
    ) -> None:
        super().__init__()
        config.check(backbone)
        self.automatic_optimization = False
        # not a submodule: frozen weights are neither this module's parameters nor in its checkpoints
        self.__dict__["backbone"] = backbone
        self.images, self.config, self.variant, self.store = images, config, variant, store
        self.prompts = [own_prompt(p) if isinstance(p, FitItem) else p for p in prompts]
        self.packs: list[list[Prompt]] = []
        self.embeddings = nn.Parameter(torch.zeros(0, *backbone.embedding_shape))
        self._pack: PackFit | None = None
        self._bank: LatentBank | None = None
        self._batches = Batches(1)

    def train_dataloader(self) -> PackSteps:
        """The steps of this process's packs."""
        trainer = self.trainer
        return PackSteps(len(self.packs), self.config.steps, trainer.global_rank, trainer.world_size)

    def on_fit_start(self) -> None:
        """Take the frozen model to the trainer's device, and see what that holds at once.

        All processes take the first one's answer, or their packs would differ; where another has
        less memory, its steps run in parts.
        """
        self.backbone.to(self.device)
        if self.prompts:
            size = resolve_pack_size(self.backbone, self.config, self.variant)
            self._batches = Batches(self.trainer.strategy.broadcast(size))
            self.packs = compose_packs(self.prompts, self._batches.size)

    def configure_optimizers(self) -> torch.optim.Adam:
        """Adam; its parameter is exchanged and its state forgotten with every pack."""
        return torch.optim.Adam([self.embeddings], lr=self.config.lr)

    def training_step(self, batch: PackStep, batch_idx: int) -> None:
        """One Adam step of one pack."""
        index, step = batch
        optimizer: Any = self.optimizers()
        if step == 0:
            self._begin(index, optimizer)
        assert self._pack is not None
        if self._pack.active:
            optimizer.zero_grad()
            losses = self._pack.backward(step, self.manual_backward)
            optimizer.step()
            self._pack.settle()
            self.log("fit/loss", losses.nanmean(), prog_bar=True, batch_size=len(losses))
        self.log("fit/pack", float(index), batch_size=1)
        if step == self.config.steps - 1:
            self._finish()

    def on_train_epoch_end(self) -> None:
        """Every item is fitted; a second epoch would fit them again."""
        self.trainer.should_stop = True

    def _begin(self, index: int, optimizer: Any) -> None:
        config = self.config
        if self._bank is None:
            pixels = crop_side(config.side or self.backbone.image_size, config.crop)
            self._bank = LatentBank(self.backbone, pixels)
        self._pack = PackFit(
            self.backbone,
            self.packs[index],
            self.images,
            config,
            self.variant,
            bank=self._bank,
            batches=self._batches,
        )
        self.embeddings = self._pack.embeddings
        optimizer.param_groups[0]["params"] = [self.embeddings]
        optimizer.state.clear()

    def _finish(self) -> None:
        assert self._pack is not None
        losses = self._pack.curves
        for row, prompt in enumerate(self._pack.prompts):
            self.store.add(*prompt.key, self.embeddings.detach()[row].cpu(), losses[:, row])
        self.store.flush()
