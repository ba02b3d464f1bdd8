"""Callbacks inside a real Trainer."""

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from PIL import Image
from torch.utils.data import DataLoader

from diffcorr.config import wandb_logger
from diffcorr.reports import FigureCallback, as_array, draw_sheet, log_figure


class Line(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(1, 1)
        self.frozen = torch.nn.Dropout().eval()
        self.modes_in_step: list[tuple[bool, bool]] = []

    def training_step(self, batch):
        self.modes_in_step.append((self.layer.training, self.frozen.training))
        return self.layer(batch).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def sheet(trainer, module):
    assert not module.training
    shade = np.full((8, 8, 3), trainer.global_step * 10, np.uint8)
    return draw_sheet([shade], [f"step {trainer.global_step}"])


def fit(callback: FigureCallback, module: Line, folder, steps: int = 5) -> Trainer:
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        callbacks=[callback],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    trainer.fit(module, DataLoader(torch.randn(steps, 1)))
    return trainer


@pytest.mark.filterwarnings("ignore")
def test_figures_appear_every_so_many_steps_and_at_the_end(tmp_path):
    module = Line()
    fit(FigureCallback("val/sheet", sheet, tmp_path / "figures", every_n_steps=2), module, tmp_path)
    written = sorted(path.name for path in (tmp_path / "figures" / "val").iterdir())
    assert written == [f"sheet-step{step:07d}.png" for step in (2, 4, 5)]
    assert module.modes_in_step == [(True, False)] * 5  # drawing leaves every layer in its own mode


@pytest.mark.filterwarnings("ignore")
def test_nothing_to_draw_writes_nothing(tmp_path):
    fit(FigureCallback("sheet", lambda trainer, module: None, tmp_path / "figures", 1), Line(), tmp_path)
    assert not (tmp_path / "figures").exists()


def test_a_figure_reaches_an_offline_wandb_run(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    logger = wandb_logger(str(tmp_path))
    figure = draw_sheet([np.zeros((8, 8, 3), np.uint8)], ["a"])
    assert log_figure([logger], "sheet", figure, 3, tmp_path).name == "sheet-step0000003.png"
    assert log_figure([], "part/sheet", figure, None, tmp_path) == tmp_path / "part" / "sheet.png"
    logger.experiment.finish()
    (logged,) = tmp_path.glob("wandb/offline-run-*/files/media/images/*.png")
    with Image.open(logged) as image:
        assert np.array_equal(np.asarray(image.convert("RGB")), as_array(figure))
