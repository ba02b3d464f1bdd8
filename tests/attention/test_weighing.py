"""Variants that weigh heads, layers, tokens and noise levels, against hand-worked cases and scipy."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import entropy
from torch import Tensor

from diffcorr.attention import MeanAttention
from diffcorr.attention.base import AttentionRead
from diffcorr.attention.capture import read_prompts, resize_maps
from diffcorr.attention.entropy import EntropyAttention
from diffcorr.attention.logits import Logits
from diffcorr.attention.multi_timestep import MultiTimestep
from diffcorr.attention.self_refined import SelfRefined
from diffcorr.attention.weighted import WeightedAttention
from diffcorr.attention.word import WordAttention
from diffcorr.backbones.base import LayerInfo
from diffcorr.correspondence import FitConfig, PromptFit, TransferConfig
from diffcorr.errors import DiffcorrError, LayerError
from diffcorr.types import Query
from tests.helpers.fit_reference import image_of
from tests.helpers.tiny_models import NUM_TOKENS, WIDTH, tiny_backbone

NAME = "block.attn2"
LAYER = LayerInfo(NAME, 0, "cross", 2, 1)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def two_heads(token: int | tuple[int, ...] | None) -> AttentionRead:
    """9 pixels, 3 tokens, two heads."""
    return AttentionRead(random(1, 2, 9, 4), random(1, 2, 3, 4, seed=1), 0.5, "cross", token, LAYER)


def test_heads_weigh_what_they_are_given() -> None:
    read = two_heads(1)
    first, second = read.probs[0, :, :, 1]
    found = WeightedAttention({NAME: [3, 1]})(read)[0]
    torch.testing.assert_close(found, 0.75 * first + 0.25 * second)
    assert torch.equal(WeightedAttention({"other": [1, 0]})(read), MeanAttention()(read))
    with pytest.raises(LayerError, match=r"expected 2 weights for the heads of block.attn2, found 3"):
        WeightedAttention({NAME: [1, 1, 1]})(read)


def test_layers_weigh_the_sum_of_their_heads() -> None:
    maps = random(2, 3, 4, 4)
    layers = [LayerInfo(name, i, "cross", 2, 1) for i, name in enumerate("abc")]
    found = WeightedAttention({"a": [1, 2], "b": [1, 0]}).join(maps, layers)
    torch.testing.assert_close(found, (3 * maps[:, 0] + maps[:, 1] + 2 * maps[:, 2]) / 6)
    with pytest.raises(LayerError, match="a layer with a weight above 0"):
        WeightedAttention({"a": [0, 0], "b": [1, 0]}).join(maps[:, :1], layers[:1])


def test_weights_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "weights.json"
    path.write_text(json.dumps({"about": {}, "weights": {"a": [1, 2]}}))
    assert repr(WeightedAttention(str(path))) == repr(WeightedAttention({"a": [1, 2]}))
    path.write_text("[]")
    for missing in (path, tmp_path / "none.json"):
        with pytest.raises(DiffcorrError, match=r"expected the weights\.json that eval"):
            WeightedAttention(str(missing))


@pytest.mark.parametrize("weights", [{"a": [-1, 2]}, {"a": []}, {"a": [0, 0]}])
def test_weights_that_mean_nothing_are_refused(weights: dict[str, list[float]]) -> None:
    with pytest.raises(DiffcorrError, match="expected"):
        WeightedAttention(weights)


def test_sharp_heads_and_layers_count_more() -> None:
    read = two_heads((1, 2))
    found = EntropyAttention(0.2)(read)[0]
    for column, token in enumerate((1, 2)):
        heads = read.probs[0, :, :, token].numpy()
        weights = np.exp(-np.array([entropy(head, base=9) for head in heads]) / 0.2)
        expected = (heads * (weights / weights.sum())[:, None]).sum(0)
        assert found[:, column].numpy() == pytest.approx(expected)
    flat, peak = torch.ones(3, 3), torch.zeros(3, 3)
    peak[1, 1] = 1.0
    joined = EntropyAttention(0.01).join(torch.stack([flat, peak])[None], [LAYER, LAYER])
    torch.testing.assert_close(joined[0], peak)


def test_the_start_token_takes_no_part() -> None:
    read = two_heads(None)
    found = WordAttention()(read)[0]
    expected = read.probs[0, :, :, 1:] / (1 - read.probs[0, :, :, :1])
    torch.testing.assert_close(found[:, 1:], expected.mean(0))
    assert not found[:, 0].any()
    with pytest.raises(LayerError, match="expected a token from 1 on, found 0"):
        WordAttention()(two_heads((2, 0)))


@pytest.mark.parametrize("trunk", ["prompt", "null"])
def test_noise_levels_are_averaged(trunk: str) -> None:
    backbone = tiny_backbone(torch.float64)
    backbone._random["prompt"] = random(1, NUM_TOKENS, WIDTH, seed=7)
    latents, noise, prompts = random(2, 4, 8, 8), random(2, 4, 8, 8, seed=1), random(2, NUM_TOKENS, WIDTH)
    levels = (20, 300, 700)

    def read(timestep: int, variant: MeanAttention | MultiTimestep) -> Tensor:
        maps = read_prompts(backbone, latents, noise, timestep, prompts, [3, 4], variant, 1, trunk=trunk)
        return resize_maps(maps, 8)

    expected = torch.stack([read(level, MeanAttention()) for level in levels]).mean(0)
    torch.testing.assert_close(read(999, MultiTimestep(levels)), expected)
    assert not torch.allclose(expected, read(300, MeanAttention()), rtol=1e-3)


def test_the_joint_map_decides_where_a_query_is_found() -> None:
    """A layer of weight 0 changes nothing: the other is as if it were read alone, in fit and transfer."""
    backbone = tiny_backbone(torch.float64)
    names = [layer.name for layer in backbone.resolve_layers("cross", [3, 5])]
    weights = WeightedAttention({names[0]: [1, 0, 0, 0], names[1]: [0, 0, 0, 0]})
    query, image = Query("toy", "a", "k", (9.0, 12.0)), image_of(0, 32, 32)
    found = []
    for layers, variant in (([3, 5], weights), ([3], MeanAttention([0]))):
        fit = FitConfig(steps=3, rounds=2, layers=layers, loss_resolution=8, bank_size=4, lr=0.1)
        method = PromptFit(backbone, variant, fit, TransferConfig(layers=layers, num_crops=6, bank_size=4))
        method.fit([query], {"a": image})
        (result,) = method.locate([query], image_of(1, 48, 40), "b", heatmaps=True)
        found.append((method.embeddings.get(query.id), result.heatmap, torch.tensor(result.point)))
    torch.testing.assert_close(found[0], found[1])


def test_variants_can_be_combined() -> None:
    variant = MultiTimestep([50, 300], SelfRefined(2, Logits()))
    assert (variant.bounded, variant.needs_self, variant.timesteps) == (False, True, (50, 300))
    assert repr(variant) == "MultiTimestep(timesteps=(50, 300), of=SelfRefined(power=2, of=Logits()))"
    inner = MultiTimestep([50], EntropyAttention())
    maps = random(1, 2, 3, 3)
    assert torch.equal(SelfRefined(of=inner).join(maps, [LAYER]), EntropyAttention().join(maps, [LAYER]))
    assert SelfRefined(of=inner).timesteps == (50,)


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda: MultiTimestep([]), "different timesteps"),
        (lambda: MultiTimestep([50, 50]), "different timesteps"),
        (lambda: MultiTimestep([1000]), "different timesteps"),
        (lambda: SelfRefined(0), "power at least 1"),
        (lambda: EntropyAttention(0.0), "temperature above 0"),
        (lambda: WordAttention(-1), "at least 0"),
    ],
)
def test_bad_values_are_refused(build, said: str) -> None:
    with pytest.raises(DiffcorrError, match=said):
        build()


def test_refining_needs_self_attention() -> None:
    with pytest.raises(LayerError, match="found none: read with capture"):
        SelfRefined()(two_heads(1))
