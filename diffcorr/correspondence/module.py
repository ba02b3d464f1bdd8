"""Prompt fitting on Lightning's trainer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch
from lightning import LightningModule
from torch import nn

from diffcorr.attention.base import AttentionVariant
from diffcorr.backbones.base import Backbone
from diffcorr.correspondence.config import FitConfig
from diffcorr.correspondence.crops import LatentBank, crop_side
from diffcorr.correspondence.pack import PackFit, fit_batches
from diffcorr.correspondence.predictor import Embeddings
from diffcorr.correspondence.prompts import FitItem, Prompt, compose_packs, own_prompt
from diffcorr.data.geometry import check_inside, image_size
from diffcorr.errors import DiffcorrError, DivergedError, ImageError
from diffcorr.memory import Batches
from diffcorr.processes import Processes
from diffcorr.types import UInt8Image

log = logging.getLogger(__name__)

PackStep = tuple[int, int]
"""(index of the pack, step of its fit)."""


class PackSteps:
    """All steps of the packs of one process: pack after pack, each from its first step to its last.

    No ``DataLoader``, so that no sampler of a trainer repeats or splits packs. A pack without steps (an
    embedding that is solved for) still comes once.

    Args:
        packs: their numbers; without a length where they are handed out as they are asked for.
        num_steps: of each.
    """

    def __init__(self, packs: Iterable[int], num_steps: int) -> None:
        self.packs, self.num_steps = packs, max(1, num_steps)

    def __len__(self) -> int:
        """How many steps.

        Raises:
            TypeError: nobody knows.
        """
        return len(self.packs) * self.num_steps  # type: ignore[arg-type]

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

    A finished pack goes to the store at once, as one file; after an interruption, fit what is still
    missing: it falls into the same packs. One epoch is the whole work: the trainer is told to stop after it.

    Packs are composed before they are shared out and are shared out whole: with `processes` as each asks for
    more, where the trainer itself runs in several processes (``strategy="ddp"``) every n-th to one.

    Args:
        backbone: frozen.
        prompts: what to fit, e.g. ``PromptFit.missing``; may be empty.
        images: RGB image of each query by ``image_id``, any size; may load on access.
        config: how to fit.
        variant: how heads become a map.
        store: receives every finished embedding.
        processes: this one among others, each with a trainer of its own; None = as the trainer says.
        failed: told the key of a prompt that cannot be fitted (an image that cannot be read, a point outside
            of it, a loss that diverges) and why, the others are fitted; None raises.
    """

    backbone: Backbone
    allow_zero_length_dataloader_with_multiple_devices = True

    def __init__(
        self,
        backbone: Backbone,
        prompts: Sequence[Prompt | FitItem],
        images: Mapping[str, UInt8Image],
        config: FitConfig,
        variant: AttentionVariant,
        store: Embeddings,
        processes: Processes | None = None,
        failed: Callable[[str, Exception], None] | None = None,
    ) -> None:
        super().__init__()
        config.check(backbone)
        self.automatic_optimization = False
        # not a submodule: frozen weights are neither this module's parameters nor in its checkpoints
        self.__dict__["backbone"] = backbone
        self.images, self.config, self.variant, self.store = images, config, variant, store
        self.processes, self.failed = processes, failed
        self.prompts = [own_prompt(p) if isinstance(p, FitItem) else p for p in prompts]
        self.packs: list[list[Prompt]] = []
        self.embeddings = nn.Parameter(torch.zeros(0, *backbone.embedding_shape))
        self._pack: PackFit | None = None
        self._bank: LatentBank | None = None
        self._batches = Batches(1)

    def train_dataloader(self) -> PackSteps:
        """The steps of this process's packs."""
        if self.processes is not None:
            packs = self.processes.share([len(pack) for pack in self.packs], "fit, packs")
        else:
            packs = range(self.trainer.global_rank, len(self.packs), self.trainer.world_size)
        return PackSteps(packs, self.config.steps)

    def on_fit_start(self) -> None:
        """Take the frozen model to the trainer's device, and see what that holds at once.

        All processes take the first one's answer, or their packs would differ; where another has
        less memory, its steps run in parts.
        """
        check_precision(self.trainer.precision)
        self.backbone.to(self.device)
        if self.prompts:
            size = self._pack_size()
            self._batches = Batches(size)
            self.packs = compose_packs(self.prompts, size)

    def configure_optimizers(self) -> torch.optim.Adam:
        """Adam; its parameter is exchanged and its state forgotten with every pack."""
        return torch.optim.Adam([self.embeddings], lr=self.config.lr)

    def training_step(self, batch: PackStep, batch_idx: int) -> None:
        """One Adam step of one pack."""
        index, step = batch
        optimizer: Any = self.optimizers()
        if step == 0:
            self._begin(index, optimizer)
        if self._pack is None:
            return
        if self.config.steps and self._pack.active:
            optimizer.zero_grad()
            losses = self._pack.backward(step, self.manual_backward)
            optimizer.step()
            self._pack.settle()
            self.log("fit/loss", losses.nanmean(), prog_bar=True, batch_size=len(losses))
        self.log("fit/pack", float(index), batch_size=1)
        if step >= self.config.steps - 1:
            self._finish(self._pack)

    def on_train_epoch_end(self) -> None:
        """Every item is fitted; a second epoch would fit them again."""
        self.trainer.should_stop = True

    def _begin(self, index: int, optimizer: Any) -> None:
        config = self.config
        if self._bank is None:
            pixels = crop_side(config.side or self.backbone.image_size, config.crop)
            self._bank = LatentBank(self.backbone, pixels)
        prompts = self.packs[index]
        try:
            self._pack = self._pack_of(prompts)
        except ImageError as error:
            if self.failed is None:
                raise
            log.info("a pack is fitted without those of its prompts that cannot be: %s", error)
            prompts = [prompt for prompt in prompts if self._is_sound(prompt)]
            self._pack = self._pack_of(prompts) if prompts else None
        if self._pack is not None:
            self.embeddings = self._pack.embeddings
            optimizer.param_groups[0]["params"] = [self.embeddings]
            optimizer.state.clear()

    def _pack_of(self, prompts: Sequence[Prompt]) -> PackFit:
        return PackFit(
            self.backbone,
            prompts,
            self.images,
            self.config,
            self.variant,
            bank=self._bank,
            batches=self._batches,
        )

    def _is_sound(self, prompt: Prompt) -> bool:
        """Whether its image can be read and shows its points; where not, it is told."""
        assert self.failed is not None
        try:
            check_queries(prompt, self.images)
        except ImageError as error:
            self.failed(_name(prompt), error)
            return False
        return True

    def _finish(self, pack: PackFit) -> None:
        losses = pack.curves
        for row, prompt in enumerate(pack.prompts):
            try:
                self.store.add(*prompt.key, self.embeddings.detach()[row].cpu(), losses[:, row])
            except DivergedError as error:
                if self.failed is None:
                    raise
                self.failed(_name(prompt), error)
        self.store.flush()

    def _pack_size(self) -> int:
        def measure() -> int:
            return fit_batches(self.backbone, self.config, self.variant).size

        if self.processes is not None:
            return self.processes.tell(measure)
        size: int = self.trainer.strategy.broadcast(measure())
        return size


def check_precision(precision: str) -> None:
    """Pass where prompts of a pack stay apart.

    Raises:
        DiffcorrError: mixed fp16, whose scaling leaves out a step of all prompts where that of one overflows.
    """
    if str(precision) in ("16", "16-mixed"):
        raise DiffcorrError(
            f"expected a precision that keeps prompts apart, found {precision}: use "
            "trainer.precision=bf16-mixed, or backbone.dtype=float16 trainer.precision=32-true"
        )


def check_queries(prompt: Prompt, images: Mapping[str, UInt8Image]) -> None:
    """ImageError where the prompt's image cannot be read or does not show one of its points."""
    size = image_size(images[prompt.image_id])
    for query, _ in prompt.items:
        check_inside(query.point, size, f"query {query.id}")


def _name(prompt: Prompt) -> str:
    return f"{prompt.key[0]} round {prompt.key[1]}"
