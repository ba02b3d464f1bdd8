"""One backbone of every family, on real classes at toy size with random weights."""

from pathlib import Path

import pytest
import torch

from diffcorr.backbones import LatentBackbone
from diffcorr.config import instantiate, load_option
from tests.helpers.tiny_models import DENOISERS, save_tiny_family


@pytest.fixture(scope="session", params=list(DENOISERS))
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="session")
def folder(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_family(tmp_path_factory.mktemp(family), family)


@pytest.fixture(scope="session")
def backbone(folder: Path) -> LatentBackbone:
    """Loaded by the one config for all; in fp64, with queries so large that attention is not flat."""
    node = load_option("backbone", "local")
    node.path_or_name, node.dtype, node.image_size = str(folder), "float64", 32
    loaded: LatentBackbone = instantiate(node)
    with torch.no_grad():
        for module in loaded.attention_modules().values():
            module.to_q.weight.mul_(8)
    return loaded
