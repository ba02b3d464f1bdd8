"""What the maps of every family of backbones are."""

import pytest
import torch
from torch import Tensor

from diffcorr.attention import MeanAttention, ReferenceAttention, capture
from diffcorr.attention.capture import read_prompts
from diffcorr.attention.entropy import EntropyAttention
from diffcorr.attention.joint import JointAttention
from diffcorr.attention.logits import Logits
from diffcorr.attention.self_refined import SelfRefined
from diffcorr.attention.spatial_softmax import SpatialSoftmax
from diffcorr.attention.word import WordAttention
from diffcorr.backbones import (
    LatentBackbone,
)
from diffcorr.backbones.joint_processor import JointAttentionProcessor
from diffcorr.backbones.processor import AttentionProcessor
from diffcorr.errors import LayerError
from tests.helpers.families import JOINT, SHAPE, latents_of, prompts_of


def test_every_layer_is_declared_once_for_each_kind(family: str, backbone: LatentBackbone) -> None:
    cross, own = backbone.layers("cross"), backbone.layers("self")
    modules = backbone.attention_modules()
    assert {layer.name for layer in (*cross, *own)} == set(modules)
    for layers in (cross, own):
        assert [layer.index for layer in layers] == list(range(len(layers)))
    assert all(layer.joint for layer in cross) == (family in JOINT)
    if family == "sd35":
        assert [layer.name for layer in own if not layer.joint] == [
            "transformer_blocks.0.attn2",
            "transformer_blocks.1.attn2",
        ]


class Keeping:
    """The arithmetic of both processors, with queries and keys kept."""

    def __init__(self) -> None:
        self.seen: list[tuple[Tensor, Tensor]] = []


class KeepingPlain(Keeping, AttentionProcessor):
    def attend(self, attn, query_BCNd, context, mask):
        self.seen.append((query_BCNd, self.heads(attn, attn.to_k(context))))
        return super().attend(attn, query_BCNd, context, mask)


class KeepingJoint(Keeping, JointAttentionProcessor):
    def mix(self, query_BCSd, key, value):
        self.seen.append((query_BCSd, key))
        return super().mix(query_BCSd, key, value)


def reference_maps(backbone: LatentBackbone, latents: Tensor, prompts: Tensor) -> dict[str, Tensor]:
    """The whole softmax (B, C, S, S') of every module, without a capture."""
    modules = backbone.attention_modules()
    joint = isinstance(next(iter(modules.values())).processor, JointAttentionProcessor)
    keepers = {name: KeepingJoint() if joint else KeepingPlain() for name in modules}
    originals = {name: module.processor for name, module in modules.items()}
    try:
        for name, module in modules.items():
            module.set_processor(keepers[name])
        backbone.denoise(latents, 140, prompts)
    finally:
        for name, module in modules.items():
            module.set_processor(originals[name])
    found = {}
    for name, keeper in keepers.items():
        ((query, key),) = keeper.seen
        found[name] = (query @ key.mT / query.shape[-1] ** 0.5).softmax(-1)
    return found


def test_maps_are_the_attention_and_its_rows_sum_to_one(backbone: LatentBackbone) -> None:
    latents, prompts = latents_of(), prompts_of(backbone)
    num_tokens = backbone.embedding_shape[0]
    with torch.no_grad():
        whole = reference_maps(backbone, latents, prompts)
        for kind in ("cross", "self"):
            with capture(backbone, "all", kind, stop_early=False) as maps:
                backbone.denoise(latents, 140, prompts)
            assert list(maps) == [layer.name for layer in backbone.layers(kind)]
            for name, found in maps.items():
                side = found.layer.downscale
                assert found.size == (SHAPE[1] // side, SHAPE[2] // side)
                pixels = found.size[0] * found.size[1]
                if not found.layer.joint:
                    expected = whole[name]
                    torch.testing.assert_close(found.tensor.sum(-1), torch.ones(2, pixels).double())
                elif kind == "cross":
                    expected = whole[name][:, :, num_tokens:, :num_tokens]
                    images = whole[name][:, :, num_tokens:, num_tokens:].sum(-1).mean(1)
                    torch.testing.assert_close(found.tensor.sum(-1) + images, torch.ones(2, pixels).double())
                    assert (found.tensor.sum(-1) < 1).all()
                else:
                    expected = whole[name][:, :, num_tokens:, num_tokens:]
                    expected = expected / expected.sum(-1, keepdim=True)
                    torch.testing.assert_close(found.tensor.sum(-1), torch.ones(2, pixels).double())
                assert found.tensor.shape == (2, pixels, expected.shape[-1])
                torch.testing.assert_close(found.tensor, expected.mean(1))


VARIANTS = [
    MeanAttention([1]),
    ReferenceAttention(),
    Logits(),
    SpatialSoftmax(),
    EntropyAttention(),
    JointAttention(),
    SelfRefined(2),
    WordAttention(0),
]


@pytest.mark.parametrize("variant", VARIANTS, ids=repr)
def test_one_token_is_the_column_of_all(backbone: LatentBackbone, variant) -> None:
    latents, prompts = latents_of(), prompts_of(backbone)
    found = {}
    for token in (None, 2, (2, 0)):
        with capture(backbone, "paper", variant=variant, token=token) as maps, torch.no_grad():
            backbone.denoise(latents, 140, prompts)
        found[token] = [m.tensor for m in maps.values()]
    for every, one, two in zip(*found.values(), strict=True):
        torch.testing.assert_close(one, every[..., 2])
        torch.testing.assert_close(two, every[..., [2, 0]])


def test_maps_spread_along_self_attention(backbone: LatentBackbone) -> None:
    """S S A out of the whole softmax of every module; with prompts beside the trunk too."""
    latents, prompts, variant = latents_of(), prompts_of(backbone), SelfRefined(2)
    num_tokens = backbone.embedding_shape[0]
    with torch.no_grad():
        whole = reference_maps(backbone, latents, prompts)
        with capture(backbone, "all", variant=variant, stop_early=False) as maps:
            backbone.denoise(latents, 140, prompts)
        for name, found in maps.items():
            own, cross = whole[name.replace("attn2", "attn1")], whole[name]
            if found.layer.joint:
                own, cross = own[:, :, num_tokens:, num_tokens:], cross[:, :, num_tokens:, :num_tokens]
            spread = (own / own.sum(-1, keepdim=True)).mean(1)
            torch.testing.assert_close(found.tensor, spread @ spread @ cross.mean(1))
        if not backbone.prompt_is_context:
            return
        null, rows = backbone.null_prompt().expand(3, -1, -1), [1, 0, 1]
        zero = torch.zeros_like(latents)
        followed, beside = (
            read_prompts(backbone, latents, zero, 140, null, "paper", variant, rows=rows, trunk=trunk)
            for trunk in ("prompt", "null")
        )
        for name, found in beside.items():
            torch.testing.assert_close(found.tensor, followed[name].tensor)


def test_blocks_of_joint_attention(family: str, backbone: LatentBackbone) -> None:
    latents, prompts = latents_of(), prompts_of(backbone)
    text = slice(0, backbone.embedding_shape[0])
    image = slice(text.stop, None)
    with torch.no_grad():
        whole = reference_maps(backbone, latents, prompts)
        with capture(backbone, "all", variant=JointAttention(), stop_early=False) as maps:
            backbone.denoise(latents, 140, prompts)
        for name, found in maps.items():
            expected = whole[name][:, :, image, text] if family in JOINT else whole[name]
            expected = (expected / expected.sum(-1, keepdim=True)).mean(1)
            torch.testing.assert_close(found.tensor, expected)
        asked = JointAttention("text_to_image")
        if family not in JOINT:
            with pytest.raises(LayerError, match="found cross-attention: use direction=image_to_text"):
                read_prompts(backbone, latents, latents, 140, prompts, "all", asked)
            return
        with capture(backbone, "all", variant=asked, stop_early=False) as maps:
            backbone.denoise(latents, 140, prompts)
        for name, found in maps.items():
            block = whole[name][:, :, text, image]
            expected = (block / block.amax(-1, keepdim=True)).mean(1)
            torch.testing.assert_close(found.tensor, expected.mT)


def test_an_early_stop_is_the_full_run(backbone: LatentBackbone) -> None:
    latents = latents_of()
    last = backbone.layers("self")[-1].index
    for kind, layers in (("cross", "paper"), ("self", [last])):
        results = []
        for stop_early in (False, True):
            prompts = prompts_of(backbone).requires_grad_()
            with capture(backbone, layers, kind, stop_early=stop_early) as maps:
                output = backbone.denoise(latents, 140, prompts)
            assert (output is None) == stop_early
            read = torch.stack([m.tensor.square().sum() for m in maps.values()]).sum()
            (gradient,) = torch.autograd.grad(read, prompts)
            results.append(([m.tensor.detach() for m in maps.values()], gradient))
        torch.testing.assert_close(results[0], results[1], rtol=1e-12, atol=1e-14)


def test_gradients_reach_every_token(backbone: LatentBackbone) -> None:
    prompts = prompts_of(backbone).requires_grad_()
    with capture(backbone, "paper", token=1) as maps:
        backbone.denoise(latents_of(), 140, prompts)
    loss = sum(m.tensor.square().sum() for m in maps.values())
    (gradient,) = torch.autograd.grad(loss, prompts)
    assert torch.isfinite(gradient).all()
    assert (gradient.abs().sum(-1) > 0).all()
    step = 1e-4 * torch.randn(prompts.shape, generator=torch.Generator().manual_seed(1)).double()
    with capture(backbone, "paper", token=1) as moved, torch.no_grad():
        backbone.denoise(latents_of(), 140, prompts + step)
        rise = sum(m.tensor.square().sum() for m in moved.values()) - loss
    # rotary positions and some norms are computed in fp32 even here
    torch.testing.assert_close(rise, (gradient * step).sum(), rtol=0.05, atol=1e-9)


def test_processors_are_restored(backbone: LatentBackbone) -> None:
    before = {name: m.processor for name, m in backbone.attention_modules().items()}
    with capture(backbone, "all"):
        backbone.denoise(latents_of(), 140, prompts_of(backbone))
    with pytest.raises(RuntimeError), capture(backbone, "all"):
        backbone.denoise(latents_of(), 140, prompts_of(backbone)[..., 1:])
    assert {name: m.processor for name, m in backbone.attention_modules().items()} == before
