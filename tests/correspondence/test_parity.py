"""The authors' own program, repeated to the letter with its recorded random numbers."""

from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from diffcorr.backbones import UNetBackbone
from diffcorr.config import config_folder, instantiate
from diffcorr.correspondence import FitConfig, FitItem, PromptFit, RecordedDraws, fit_prompts, transfer
from diffcorr.correspondence.crops import crop_bounds
from diffcorr.types import Query

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data" / "parity" / "prompt_fit"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="needs ../shared/data beside the checkout")


@pytest.fixture(scope="module")
def record() -> dict[str, Tensor]:
    return load_file(FOLDER / "record.safetensors")


@pytest.fixture(scope="module")
def method() -> PromptFit:
    config = OmegaConf.create(
        {"seed": 0, "method": OmegaConf.load(config_folder() / "method/prompt_fit_reference.yaml")}
    )
    return instantiate(config.method)(backbone=UNetBackbone.from_pretrained(FOLDER))


def picture(name: str) -> np.ndarray:
    return np.asarray(Image.open(FOLDER / f"{name}.png").convert("RGB"))


@pytest.mark.parametrize("bank_size", [0, 4096])
def test_fit(method: PromptFit, record: dict[str, Tensor], bank_size: int) -> None:
    config = FitConfig(**{**vars(method.fit_config), "steps": 3, "bank_size": bank_size})
    x, y = record["query"].double().tolist()
    item = FitItem(Query("parity", "source", "query", (x, y)), 0)
    draws = RecordedDraws(record["fit_crop_xy"], record["fit_noise"][:, 0], record["context_init"][0])
    result = fit_prompts(
        method.backbone, [item], {"source": picture("source")}, config, method.variant, [draws]
    )
    torch.testing.assert_close(result.losses[:, 0], record["fit_loss"], rtol=1e-5, atol=0)
    torch.testing.assert_close(result.embeddings, record["context_final"], rtol=0, atol=3e-5)
    low, high = crop_bounds((x, y), 512, 477, config.margin)
    for crop in record["fit_crop_xy"].tolist():
        assert all(a <= v <= b for a, v, b in zip(low, crop, high, strict=True))


def test_transfer(method: PromptFit, record: dict[str, Tensor]) -> None:
    from dataclasses import replace

    draws = RecordedDraws(record["transfer_crop_xy"], record["transfer_noise"][:, 0])
    (found,) = transfer(
        method.backbone,
        picture("target"),
        record["context_final"][None],
        replace(method.transfer_config, num_crops=5),
        method.variant,
        draws=[[draws]],
        heatmaps=True,
    )
    assert found.point == tuple(record["point"].tolist())
    assert list(found.layer_points.values()) == [tuple(p) for p in record["point_per_layer"].tolist()]
    maps = torch.stack(list(found.layer_maps.values()))
    torch.testing.assert_close(maps[:, ::64], record["map_rows"], rtol=0, atol=1e-6)
    pooled = torch.nn.functional.avg_pool2d(maps[:, None], 8)[:, 0]
    torch.testing.assert_close(pooled, record["maps_64"], rtol=0, atol=1e-6)
    # the recorded corners are ours, and its last crop lies where ours would be drawn
    assert record["transfer_crop_xy"][:4].tolist() == [[0, 0], [0, 35], [35, 0], [35, 35]]
    low, high = crop_bounds((206.5, 22.5), 512, 477, 0.15)
    x, y = record["transfer_crop_xy"][4].tolist()
    assert low[0] <= x <= high[0]
    assert low[1] == y == high[1]
