import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from diffcorr.attention import MeanAttention
from diffcorr.backbones import UNetBackbone
from diffcorr.correspondence import FitConfig, FitItem, compose_prompts, fit_prompts
from diffcorr.correspondence.draws import SeededDraws
from diffcorr.correspondence.features_start import RANGE
from diffcorr.correspondence.pack import PackFit
from diffcorr.data.partworld import PartWorldPairs
from diffcorr.types import Query
from tests.helpers.fit_reference import crop_latent, image_of
from tests.helpers.tiny_models import NUM_TOKENS, save_tiny_pipeline

MEAN = MeanAttention()
CONFIG = FitConfig(
    steps=0,
    sigma=0.1,
    crop=0.8,
    rounds=1,
    layers=[3, 4, 5],
    loss_resolution=None,
    init="features",
    init_crops=2,
    init_ridge=0.02,
)
IMAGE = image_of(2, 32, 32)
QUERY = Query("toy", "c", "k", (21.0, 9.5))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_pipeline(tmp_path_factory.mktemp("model"))


def test_against_equations_written_out(folder: Path) -> None:
    """Every pixel, head and layer of every pass as one weighted equation, one after the other, in numpy."""
    backbone = UNetBackbone.from_pretrained(folder, dtype="float64")
    pack = PackFit(backbone, [FitItem(QUERY, 0)], {"c": IMAGE}, CONFIG, MEAN)
    random_start = SeededDraws("fit", 0, QUERY.id, 0).init(backbone.embedding_shape).double()
    random_start += backbone.null_prompt()[0].detach()
    noises = SeededDraws("features", 0, QUERY.id, 0)
    names = [layer.name for layer in backbone.layers("cross") if layer.index in (3, 4, 5)]
    modules = dict(backbone.unet.named_modules())
    inputs: dict[str, torch.Tensor] = {}
    for name in names:
        modules[name].register_forward_pre_hook(
            lambda module, args, kwargs, name=name: inputs.update({name: args[0]}), with_kwargs=True
        )
    width = backbone.embedding_shape[1]
    left, right = np.zeros((width, width)), np.zeros(width)
    for crop in pack._crops[0][:2]:
        latent = crop_latent(backbone, IMAGE, crop.x, crop.y, 25, False)
        alpha = backbone.alphas_cumprod[140]
        noise = noises.noise(0, (4, 8, 8), "gaussian").double()
        with torch.no_grad():
            backbone.unet(alpha.sqrt() * latent + (1 - alpha).sqrt() * noise, 140, random_start[None])
        centre = (np.array(QUERY.point) - (crop.x, crop.y)) / 25
        for name in names:
            attention = modules[name]
            query = attention.to_q(inputs[name])[0].detach().numpy()
            weight = attention.to_k.weight.detach().numpy()
            side, size = int(len(query) ** 0.5), len(weight) // attention.heads
            for pixel in range(len(query)):
                place = np.array([pixel % side + 0.5, pixel // side + 0.5])
                p = np.exp(-((place - centre * side) ** 2).sum() / (2 * (0.1 * side) ** 2)).clip(*RANGE)
                for head in range(attention.heads):
                    part = slice(head * size, (head + 1) * size)
                    row = query[pixel, part] @ weight[part] * attention.scale
                    scores = random_start.numpy() @ row
                    others = np.log(np.exp(np.delete(scores, 1)).sum())
                    wanted = np.log(p / (1 - p)) + others
                    left += p * (1 - p) * np.outer(row, row)
                    right += p * (1 - p) * row * wanted
    expected = np.linalg.solve(left + 0.02 * np.trace(left) / width * np.eye(width), right)
    found = pack.embeddings.detach()[0]
    np.testing.assert_allclose(found[1], expected, rtol=1e-3, atol=1e-4)
    untouched = [0, *range(2, NUM_TOKENS)]
    assert torch.equal(found[untouched], random_start[untouched])


@pytest.mark.parametrize("share", ["none", "image"])
def test_it_does_not_depend_on_packs(share: str, folder: Path) -> None:
    backbone = UNetBackbone.from_pretrained(folder)
    queries = [QUERY, dataclasses.replace(QUERY, keypoint="l", point=(8.0, 20.0))]
    prompts = compose_prompts(queries, 2, share, 2)
    config = dataclasses.replace(CONFIG, steps=1, rounds=2, share=share)
    together, alone = (
        fit_prompts(backbone, prompts, {"c": IMAGE}, dataclasses.replace(config, pack_size=size), MEAN)
        for size in (8, 1)
    )
    torch.testing.assert_close(alone.losses, together.losses, rtol=1e-3, atol=1e-5)


def test_a_trained_model_starts_lower() -> None:
    backbone = UNetBackbone.from_pretrained("tiny")
    data = PartWorldPairs("val", num_pairs=1)
    pair = data.pairs[0]
    prompts = compose_prompts(pair.queries(), 1, "none", 1)
    images = {pair.source_id: data.image(pair.source_id)}
    config = FitConfig(steps=1, rounds=1, sigma=0.06, loss_resolution=None)
    text, features = (
        fit_prompts(backbone, prompts, images, dataclasses.replace(config, init=init, init_scale=0.3), MEAN)
        for init in ("text", "features")
    )
    assert features.losses.mean() < 0.75 * text.losses.mean()
