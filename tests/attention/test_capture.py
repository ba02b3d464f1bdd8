import pytest
import torch
from torch import Tensor

from diffcorr.attention import MeanAttention, ReferenceAttention, capture, resize_maps
from diffcorr.attention.base import AttentionRead
from diffcorr.backbones import UNetBackbone
from diffcorr.errors import LayerError, UnknownNameError
from tests.helpers.tiny_models import NUM_TOKENS, WIDTH, tiny_backbone

DTYPE = torch.float64


@pytest.fixture
def backbone() -> UNetBackbone:
    return tiny_backbone(DTYPE)


def inputs(batch: int = 2, height: int = 8, width: int = 8) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    latents = torch.randn(batch, 4, height, width, generator=generator, dtype=DTYPE)
    return latents, torch.randn(batch, NUM_TOKENS, WIDTH, generator=generator, dtype=DTYPE)


def plain_attention(backbone: UNetBackbone, name: str, latents: Tensor, embeds: Tensor) -> Tensor:
    """Probabilities (B, C, N, M) from the layer's inputs, by the library's own score function."""
    seen: dict[str, Tensor] = {}
    module = backbone.attention_modules()[name]

    def keep(mod: torch.nn.Module, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
        seen["x"] = args[0]
        context = kwargs.get("encoder_hidden_states")
        seen["context"] = args[0] if context is None else context

    handle = module.register_forward_pre_hook(keep, with_kwargs=True)
    backbone.denoise(latents, 140, embeds)
    handle.remove()
    query = module.head_to_batch_dim(module.to_q(seen["x"]))
    key = module.head_to_batch_dim(module.to_k(seen["context"]))
    return module.get_attention_scores(query, key).unflatten(0, (len(latents), -1))


@pytest.mark.parametrize("kind", ["cross", "self"])
def test_maps_are_the_librarys_probabilities(backbone: UNetBackbone, kind: str) -> None:
    latents, embeds = inputs()
    with torch.no_grad():
        with capture(backbone, "all", kind) as maps:  # type: ignore[arg-type]
            backbone.denoise(latents, 140, embeds)
        assert list(maps) == [layer.name for layer in backbone.layers(kind)]  # type: ignore[arg-type]
        for name, found in maps.items():
            expected = plain_attention(backbone, name, latents, embeds)
            torch.testing.assert_close(found.tensor, expected.mean(1))
            torch.testing.assert_close(found.tensor.sum(-1), torch.ones_like(found.tensor[..., 0]))


def test_reference_reads_the_second_half_of_the_heads(backbone: UNetBackbone) -> None:
    latents, embeds = inputs()
    with torch.no_grad():
        with capture(backbone, [4], variant=ReferenceAttention(), token=1) as maps:
            backbone.denoise(latents, 140, embeds)
        ((name, found),) = maps.items()
        expected = plain_attention(backbone, name, latents, embeds)[:, 2:4, :, 1].mean(1)
        torch.testing.assert_close(found.tensor, expected)
        with capture(backbone, [4], variant=MeanAttention(heads=[2, 3]), token=1) as maps:
            backbone.denoise(latents, 140, embeds)
        torch.testing.assert_close(maps[name].tensor, expected)


def test_reading_does_not_change_the_model(backbone: UNetBackbone) -> None:
    latents, embeds = inputs()
    expected = backbone.denoise(latents, 140, embeds)
    for kind in ("cross", "self"):
        with capture(backbone, "all", kind, stop_early=False):  # type: ignore[arg-type]
            found = backbone.denoise(latents, 140, embeds)
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("token", [1, None])
def test_stopping_early_gives_the_same_maps_and_gradients(backbone: UNetBackbone, token: int | None) -> None:
    latents, embeds = inputs()
    results = []
    for stop in (True, False):
        prompt = embeds.clone().requires_grad_()
        with capture(backbone, "paper", token=token, stop_early=stop) as maps:
            out = backbone.denoise(latents, 140, prompt)
        assert (out is None) == stop
        weights = [(i + 1) * m.tensor.square().sum() for i, m in enumerate(maps.values())]
        torch.stack(weights).sum().backward()
        results.append(([m.tensor for m in maps.values()], prompt.grad))
    torch.testing.assert_close(results[0], results[1], rtol=1e-12, atol=1e-14)
    assert results[0][1].abs().max() > 0


def test_nothing_after_the_last_layer_runs(backbone: UNetBackbone) -> None:
    ran = []
    for i, block in enumerate(backbone.unet.up_blocks):
        block.register_forward_hook(lambda *_, i=i: ran.append(i))
    latents, embeds = inputs()
    with capture(backbone, [3]):
        backbone.denoise(latents, 140, embeds)
    assert ran == []


@pytest.mark.parametrize("kind", ["cross", "self"])
def test_processors_come_back(backbone: UNetBackbone, kind: str) -> None:
    before = {name: module.processor for name, module in backbone.attention_modules().items()}
    latents, embeds = inputs()
    with capture(backbone, "all", kind):  # type: ignore[arg-type]
        backbone.denoise(latents, 140, embeds)
    with pytest.raises(KeyError), capture(backbone, "all", kind):  # type: ignore[arg-type]
        raise KeyError
    with pytest.raises(RuntimeError), capture(backbone, "all", kind):  # type: ignore[arg-type]
        backbone.denoise(latents, 140, embeds[..., :3])
    after = {name: module.processor for name, module in backbone.attention_modules().items()}
    assert all(before[name] is after[name] for name in before)
    assert before.keys() == after.keys()


def test_maps_know_their_size_also_when_not_square(backbone: UNetBackbone) -> None:
    latents, embeds = inputs(height=6, width=10)
    with capture(backbone, "all", token=1) as maps:
        backbone.denoise(latents, 140, embeds)
    sizes = [m.size for m in maps.values()]
    assert sizes == [(6, 10), (3, 5), (3, 5), (3, 5), (3, 5), (6, 10), (6, 10)]
    assert [tuple(m.grid.shape) for m in maps.values()] == [(2, *size) for size in sizes]
    assert resize_maps(maps, 12).shape == (2, 7, 12, 12)


def test_errors(backbone: UNetBackbone) -> None:
    with pytest.raises(LayerError, match="recorded nothing"), capture(backbone):
        pass
    with pytest.raises(UnknownNameError, match="known: 0="), capture(backbone, [12]):
        pass
    with pytest.raises(LayerError, match="expected a token in"), capture(backbone, token=NUM_TOKENS):
        pass
    with pytest.raises(LayerError, match="expected a token in"), capture(backbone, kind="self", token=1):
        pass
    latents, embeds = inputs()
    with pytest.raises(LayerError, match=r"heads in 0\.\.3"), capture(backbone, variant=MeanAttention([4])):
        backbone.denoise(latents, 140, embeds)


def test_half_precision_scores_are_exact() -> None:
    """The softmax is taken in fp32 of what the half-precision projections give."""
    query, key = torch.randn(2, 1, 2, 5, 4, dtype=torch.bfloat16)
    read = AttentionRead(query, key, 0.5, "cross")
    expected = (query.double() @ key.double().transpose(-1, -2) * 0.5).softmax(-1)
    assert read.probs.dtype == torch.float32
    torch.testing.assert_close(read.probs.double(), expected, rtol=1e-6, atol=1e-7)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(AttentionRead(query.float(), key.float(), 0.5, "cross").probs, read.probs)
