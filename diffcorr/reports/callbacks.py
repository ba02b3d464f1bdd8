"""Lightning callbacks that draw while a run goes on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger, WandbLogger
from matplotlib.figure import Figure

from diffcorr.reports.canvas import as_array, save_figure

Draw = Callable[[Trainer, LightningModule], Figure | None]
"""Makes a figure of the present state, or ``None`` when there is nothing to draw."""


def log_figure(
    loggers: Iterable[Logger], name: str, figure: Figure, step: int | None, folder: str | os.PathLike[str]
) -> Path:
    """Write a figure into the run folder, and send it to the loggers that take images.

    Args:
        loggers: a trainer's loggers.
        name: of the figure; a slash makes a folder and, in W&B, a section.
        figure: what to log.
        step: global step; ``None`` for a figure that a run makes once.
        folder: the run's figure folder.

    Returns:
        Where the PNG is, ``folder/<name>-step<step>.png``, or ``folder/<name>.png`` without a step.

    Raises:
        StoreError: the file cannot be written.
    """
    stem = name if step is None else f"{name}-step{step:07d}"
    path = save_figure(figure, Path(folder) / f"{stem}.png")
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            logger.log_image(name, [as_array(figure)], step=step)
    return path


class FigureCallback(Callback):
    """Draws a figure every so many training steps and when training ends.

    Sample sheets, heatmap panels and the like are all this callback with another ``draw``.

    Args:
        name: of the figure, in the file's name and in W&B.
        draw: makes the figure; called with the module in evaluation mode.
        folder: the run's figure folder.
        every_n_steps: how many training steps lie between figures; 0 draws only at the end.
    """

    def __init__(self, name: str, draw: Draw, folder: str | os.PathLike[str], every_n_steps: int = 0) -> None:
        self.name = name
        self.draw = draw
        self.folder = Path(folder)
        self.every_n_steps = every_n_steps
        self._last_step = -1

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Draw when the step is due; accumulated batches of one step draw once."""
        if self.every_n_steps and trainer.global_step % self.every_n_steps == 0:
            self._log(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the final state."""
        self._log(trainer, pl_module)

    def _log(self, trainer: Trainer, module: LightningModule) -> None:
        if not trainer.is_global_zero or trainer.global_step == self._last_step:
            return
        self._last_step = trainer.global_step
        modes = {child: child.training for child in module.modules()}
        module.eval()
        try:
            figure = self.draw(trainer, module)
        finally:
            for child, training in modes.items():
                child.training = training
        if figure is not None:
            log_figure(trainer.loggers, self.name, figure, trainer.global_step, self.folder)
