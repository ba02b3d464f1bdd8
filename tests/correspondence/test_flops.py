"""FLOPs that settings imply, against a counter that watches the real work."""

import dataclasses

import numpy as np
import pytest
import torch

from diffcorr.attention.mean import MeanAttention
from diffcorr.backbones import UNetBackbone
from diffcorr.config import compose, instantiate
from diffcorr.correspondence import FitConfig, PromptFit, TransferConfig
from diffcorr.correspondence.flops import Pieces, count_pieces, counted, fit_flops, transfer_flops
from diffcorr.types import Pair
from tests.helpers.protocol_reference import make_pair
from tests.helpers.tiny_models import IMAGE_SIZE, save_tiny_pipeline

FIT = FitConfig(
    steps=3, rounds=2, layers=(0, 1), crop=0.9, bank_size=0, loss_resolution=8, pack_size=8, init_crops=2
)
READ = TransferConfig(layers=(0, 1), crop=0.9, num_crops=4, crops="grid")
CASES = {
    "the paper's": (FIT, TransferConfig(layers=(0, 1), crop=0.9, num_crops=4)),
    "all of the model": (
        dataclasses.replace(FIT, stop_early=False),
        dataclasses.replace(READ, stop_early=False),
    ),
    "from features": (dataclasses.replace(FIT, init="features", steps=1), READ),
    "one pass for all": (
        dataclasses.replace(FIT, init="features", steps=0, trunk="null", views="image"),
        dataclasses.replace(READ, trunk="null", num_noises=2),
    ),
    "shared prompts": (dataclasses.replace(FIT, share="round", views="image"), READ),
}


def a_pair(size: int) -> Pair:
    points = ((10.0, 12.0), (30.0, 25.0), (20.0, 40.0))
    return make_pair(
        0, keypoints=("a", "b", "c"), source_points=points, target_points=points, source_size=(size, size)
    )


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> UNetBackbone:
    return UNetBackbone.from_pretrained(save_tiny_pipeline(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def pieces(backbone: UNetBackbone) -> Pieces:
    return count_pieces(backbone, (0, 1))


@pytest.mark.parametrize("case", CASES)
def test_the_samples_of_the_count_are_those_of_the_work(
    case: str, backbone: UNetBackbone, pieces: Pieces
) -> None:
    fit, read = CASES[case]
    pair, image = a_pair(48), np.zeros((48, 48, 3), np.uint8)
    method = PromptFit(backbone, MeanAttention(), fit, read)
    each = pieces
    ahead = each.early if fit.stop_early else each.whole
    backbone.null_prompt()  # once for all
    encoded, passed = [], []
    hooks = [
        backbone.vae.encoder.register_forward_pre_hook(lambda _, args: encoded.append(len(args[0]))),
        backbone.unet.register_forward_pre_hook(
            lambda _, args, named: passed.append(len(named.get("sample", *args[:1]))), with_kwargs=True
        ),
    ]
    try:
        with counted() as counter:
            method.fit(pair.queries(), {pair.source_id: image})
        backward = each.backward * (6 if fit.share == "none" else 2) * fit.steps * (fit.trunk == "prompt")
        # one crop is encoded for the shape of its latent alone
        expected = ahead * sum(passed) + backward + each.encode * (sum(encoded) - 1)
        told = fit_flops(backbone, each, fit, [3])
        assert told == pytest.approx(expected)
        # the work has targets and equations too, and may share the first layers of passes
        assert 0.6 * told <= counter.get_total_flops() <= 1.3 * told
        encoded.clear()
        passed.clear()
        with counted() as counter:
            method.locate(pair.queries(), image, "target")
        told = transfer_flops(backbone, each, fit, read, [3])
        assert told == pytest.approx(ahead * sum(passed) + each.encode * sum(encoded))
        assert 0.6 * told <= counter.get_total_flops() <= 1.3 * told
    finally:
        for hook in hooks:
            hook.remove()


def test_pieces_on_fake_tensors_are_those_of_a_real_pass(backbone: UNetBackbone, pieces: Pieces) -> None:
    each = pieces
    with counted() as counter, torch.no_grad():
        latents = backbone.encode(torch.zeros(1, 3, IMAGE_SIZE, IMAGE_SIZE))
    assert each.encode == counter.get_total_flops()
    with counted() as counter, torch.no_grad():
        backbone.denoise(latents, 140, torch.zeros(1, *backbone.embedding_shape))
    assert each.whole == counter.get_total_flops()
    assert 0 < each.early < each.whole
    assert each.backward > 0


def test_the_published_program_at_its_true_size(backbone: UNetBackbone, pieces: Pieces) -> None:
    """645 passes forward and backward, 100 forward and 745 of the encoder, for one keypoint."""
    config = compose("eval", ["backbone=sd15", "backbone.weights=random", "method=prompt_fit_reference"])
    found = instantiate(config.method).keywords
    fit, read = found["fit"], found["transfer"]
    each = pieces
    side = {"side": 512, "layers": (0, 1)}
    fit, read = dataclasses.replace(fit, **side), dataclasses.replace(read, **side)
    passes = 645 * (each.whole + each.backward + each.encode)
    assert fit_flops(backbone, each, fit, [1]) == pytest.approx(passes)
    # of 20 crops in each of 5 rounds the four corners are encoded once for all of them
    expected = 100 * each.whole + (4 + 5 * 16) * each.encode
    assert transfer_flops(backbone, each, fit, read, [1]) == pytest.approx(expected)
