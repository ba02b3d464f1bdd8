import pytest

from diffcorr.backbones.unet import UNetBackbone
from tests.helpers.tiny_models import save_tiny_pipeline


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> UNetBackbone:
    """A random model of real classes: images of 32, self-attention of 4 heads at 8 and 4."""
    return UNetBackbone.from_pretrained(save_tiny_pipeline(tmp_path_factory.mktemp("pipeline")))
