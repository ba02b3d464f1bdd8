"""What every family of backbones has to keep, on real classes at toy size with random weights."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
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
    FluxBackbone,
    LatentBackbone,
    PixArtBackbone,
    SD3Backbone,
    SDXLBackbone,
    UNetBackbone,
)
from diffcorr.backbones.joint_processor import JointAttentionProcessor
from diffcorr.backbones.processor import AttentionProcessor
from diffcorr.config import instantiate, load_option
from diffcorr.correspondence import FitConfig, PromptFit, TransferConfig
from diffcorr.errors import BackboneError, DiffcorrError, LayerError, UnknownNameError
from diffcorr.segmentation import DiffSeg
from diffcorr.types import Query
from tests.helpers.fit_reference import image_of
from tests.helpers.tiny_models import DENOISERS, save_tiny_family

CLASSES = {
    "unet": UNetBackbone,
    "sdxl": SDXLBackbone,
    "pixart": PixArtBackbone,
    "sd3": SD3Backbone,
    "sd35": SD3Backbone,
    "flux": FluxBackbone,
    "flux_schnell": FluxBackbone,
}
JOINT = ("sd3", "sd35", "flux", "flux_schnell")
SHAPE = (4, 8, 12)


@pytest.fixture(scope="module", params=list(DENOISERS))
def family(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def folder(family: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_family(tmp_path_factory.mktemp(family), family)


@pytest.fixture(scope="module")
def backbone(folder: Path) -> LatentBackbone:
    """Loaded by the one config for all; in fp64, with queries so large that attention is not flat."""
    node = load_option("backbone", "local")
    node.path_or_name, node.dtype, node.image_size = str(folder), "float64", 32
    loaded: LatentBackbone = instantiate(node)
    with torch.no_grad():
        for module in loaded.attention_modules().values():
            module.to_q.weight.mul_(8)
    return loaded


def latents_of(count: int = 2, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, *SHAPE, generator=generator, dtype=torch.float64)


def prompts_of(backbone: LatentBackbone, count: int = 2) -> Tensor:
    shape = (count, *backbone.embedding_shape)
    return torch.randn(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def test_the_folder_picks_the_class(family: str, folder: Path, backbone: LatentBackbone) -> None:
    assert type(backbone) is CLASSES[family]
    assert type(CLASSES[family].from_pretrained(folder)) is CLASSES[family]
    assert not backbone.training
    assert not any(p.requires_grad for p in backbone.parameters())


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


def test_prompts_that_share_a_latent(backbone: LatentBackbone) -> None:
    latents, prompts, rows = latents_of(), prompts_of(backbone, 3), [1, 0, 1]
    with torch.no_grad():
        together = backbone.denoise(latents, 140, prompts, rows)
        alone = backbone.denoise(latents[rows], 140, prompts)
    torch.testing.assert_close(together, alone)
    assert together is not None
    assert together.shape[1:] == (2 * SHAPE[0] if isinstance(backbone, PixArtBackbone) else SHAPE[0], 8, 12)


def test_features_are_a_blocks_output(backbone: LatentBackbone) -> None:
    latents, prompts = latents_of(), prompts_of(backbone)
    last = len(backbone._blocks()) - 1
    seen = []
    handle = backbone._blocks()[last].register_forward_hook(lambda m, a, out: seen.append(out))
    with torch.no_grad():
        backbone.denoise(latents, 140, prompts)
        handle.remove()
        found = backbone.features(latents, 140, prompts, last)
    whole = seen[0][-1] if isinstance(seen[0], tuple) else seen[0]
    if found.shape != whole.shape:  # (B, N, D): row by row
        assert found.shape[-2:] == (4, 6)
        torch.testing.assert_close(found[:, :, 1, 2], whole[:, -24:][:, 6 + 2])
    else:
        torch.testing.assert_close(found, whole)


def test_a_round_trip_through_a_folder(folder: Path, tmp_path: Path) -> None:
    first = LatentBackbone.from_pretrained(folder, image_size=32)
    for part in (first.folder, "vae", *first.text_parts):
        getattr(first, part).save_pretrained(tmp_path / part)
    (tmp_path / "scheduler").symlink_to(folder / "scheduler")
    again = LatentBackbone.from_pretrained(tmp_path, image_size=32)
    assert again.fingerprint == first.fingerprint
    images = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    found = []
    with torch.no_grad():
        for model in (first, again):
            latents = model.encode(images)
            noisy = model.add_noise(latents, torch.ones_like(latents), 300)
            found.append(model.denoise(noisy, 300, model.null_prompt()))
    assert torch.equal(found[0], found[1])


def test_prompts_are_found_in_a_picture(backbone: LatentBackbone) -> None:
    fit = FitConfig(steps=2, rounds=1, layers="paper", token=1, bank_size=4, pack_size=2)
    method = PromptFit(backbone, fit=fit, transfer=TransferConfig(layers="paper", token=1, num_crops=2))
    queries = [Query("toy", "a", f"k{i}", point) for i, point in enumerate([(5.0, 6.0), (30.0, 33.0)])]
    method.fit(queries, {"a": image_of(0, 48, 40)})
    before = method.embeddings.get(queries[0].id)
    assert before is not None
    assert before.shape == (1, *backbone.embedding_shape)
    results = method.locate(queries, image_of(1, 60, 36), "toy/b")
    for result in results:
        assert 0 <= result.point[0] <= 60
        assert 0 <= result.point[1] <= 36
        assert set(result.layer_points) == {layer.name for layer in backbone.resolve_layers("cross", "paper")}


@pytest.mark.parametrize("fit", ["stretch", "native"])
def test_a_picture_is_cut_into_segments(backbone: LatentBackbone, fit: str) -> None:
    image = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    (mask,) = DiffSeg(tau=0.01, anchors=4, fit=fit).segment([image], backbone=backbone)
    assert mask.shape == (32, 48)
    assert mask.min() >= 0


def test_random_weights_have_the_folders_architecture(folder: Path) -> None:
    loaded, built, bare = (
        LatentBackbone.from_pretrained(folder, image_size=32, weights=weights, device=device)
        for weights, device in (("pretrained", "cpu"), ("random", "cpu"), ("random", "meta"))
    )
    shapes = {name: p.shape for name, p in loaded.denoiser.named_parameters()}
    assert {name: p.shape for name, p in built.denoiser.named_parameters()} == shapes
    assert built.fingerprint != loaded.fingerprint
    with torch.no_grad():
        latents = torch.randn(1, *SHAPE)
        assert built.denoise(latents, 140, built.null_prompt()) is not None
    assert bare.device.type == "meta"
    for kind in ("cross", "self"):
        assert bare.layers(kind) == built.layers(kind) == loaded.layers(kind)


def test_what_it_needs(family: str, backbone: LatentBackbone) -> None:
    needs = backbone.needs()
    assert needs.family == type(backbone).__name__.removesuffix("Backbone")
    assert needs.multiple == 8  # four pixels a latent, and halved once
    assert (needs.latent_channels, needs.latent_downscale, needs.image_size) == (4, 4, 32)
    assert needs.prediction == ("flow" if family in JOINT else "epsilon")
    assert needs.embedding == backbone.embedding_shape


def test_what_a_family_cannot_do_is_said(family: str, backbone: LatentBackbone) -> None:
    latents, prompts = latents_of(), prompts_of(backbone)
    if family in ("unet", "sdxl"):
        assert read_prompts(backbone, latents, 0 * latents, 140, prompts, "paper", trunk="null")
        return
    with pytest.raises(LayerError, match=r"reads the prompt itself .* use trunk=prompt"):
        read_prompts(backbone, latents, 0 * latents, 140, prompts, "paper", trunk="null")
    with pytest.raises(BackboneError, match=r"multiples of 8 pixels for .*, found 32x44"):
        backbone.denoise(latents[..., :11], 140, prompts)
    if family in ("sd3", "sd35"):
        with pytest.raises(BackboneError, match=r"at most 96 pixels for .*, found 104"):
            backbone.denoise(torch.zeros(1, 4, 8, 26).double(), 140, prompts[:1])


def test_another_familys_folder_is_refused(family: str, folder: Path) -> None:
    other = UNetBackbone if family not in ("unet", "sdxl") else PixArtBackbone
    with pytest.raises(BackboneError, match=r"expected a model with .*, found (UNet|Pix|SD3|Flux)"):
        other.from_pretrained(folder)


def test_a_features_start_needs_keys_of_the_prompt_itself(family: str, backbone: LatentBackbone) -> None:
    """Elsewhere its linear equations would be of something else than the prompt."""
    config = FitConfig(steps=1, rounds=1, init="features", layers="all", loss_resolution=None)
    if family in ("unet", "sdxl"):
        PromptFit(backbone, fit=config)
        return
    with pytest.raises(DiffcorrError, match="expected a U-Net for init=features, found"):
        PromptFit(backbone, fit=config)


@pytest.mark.parametrize("offload", ["texts", "layers"])
def test_what_stays_in_main_memory_changes_nothing(family: str, folder: Path, offload: str) -> None:
    """The same maps, gradients and prompts; moving the model leaves what is set apart where it is."""
    plain, small = (
        LatentBackbone.from_pretrained(folder, image_size=32, offload=how) for how in ("none", offload)
    )
    assert small.fingerprint == plain.fingerprint
    found = []
    for model in (plain, small):
        prompts = model.encode_prompt(["a bird", ""])[0].requires_grad_()
        with capture(model, "paper", token=1) as maps:
            model.denoise(latents_of().float(), 140, prompts)
        read = torch.stack([m.tensor.square().sum() for m in maps.values()]).sum()
        found.append((prompts.detach(), read, *torch.autograd.grad(read, prompts), model.null_prompt()))
    torch.testing.assert_close(found[0], found[1])
    weights = [p for name, p in small.denoiser.named_parameters() if name.endswith("weight")]
    assert {p.device.type for p in weights} == {"meta" if offload == "layers" else "cpu"}
    small.to("meta")
    assert {p.device.type for p in small.vae.parameters()} == {"meta"}
    texts = [getattr(small, part) for part in small.text_parts if "encoder" in part]
    assert {p.device.type for text in texts for p in text.parameters()} == {"cpu"}
    with pytest.raises(UnknownNameError, match="unknown offload"):
        LatentBackbone.from_pretrained(folder, offload="disk")


def test_a_text_encoder_without_all_weights_is_refused(family: str, folder: Path, tmp_path: Path) -> None:
    """The library would fill in random ones."""
    shutil.copytree(folder, tmp_path / "model")
    part = next(part for part in CLASSES[family].text_parts if "encoder" in part)
    weights = tmp_path / "model" / part / "model.safetensors"
    tensors = load_file(weights)
    gone = next(name for name in tensors if "layer_norm" in name)
    save_file({name: t for name, t in tensors.items() if name != gone}, weights, {"format": "pt"})
    with pytest.raises(
        BackboneError, match=rf"expected the weights of {part} in .*, found none for .*layer_norm"
    ):
        LatentBackbone.from_pretrained(tmp_path / "model", image_size=32)
