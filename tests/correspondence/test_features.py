"""Where features come from: real transformers classes and a VGG19 at toy size, read by hand."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, AutoModel, PreTrainedModel

from diffcorr.correspondence.features import (
    FeatureSource,
    FusedFeatures,
    UNetFeatures,
    VGGFeatures,
    ViTFeatures,
)
from diffcorr.correspondence.features.imagenet import imagenet_pixels
from diffcorr.correspondence.features.vgg import VGG19, layer_names
from diffcorr.errors import BackboneError, DiffcorrError, LayerError, UnknownNameError
from diffcorr.types import UInt8Image
from tests.helpers.fit_reference import image_of
from tests.helpers.tiny_models import tiny_backbone

IMAGE = image_of(3, 37, 29)
SMALL = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 24}
FAMILIES = {  # model type, patch, further fields, number of class and register tokens
    "dino": ("vit", 8, {}, 1),
    "dinov2": ("dinov2", 14, {}, 1),
    "dinov2_registers": ("dinov2_with_registers", 14, {"num_register_tokens": 4}, 5),
    "dinov3": ("dinov3_vit", 16, {"num_register_tokens": 4}, 5),
}
FACETS = ("token", "query", "key", "value")


def saved(family: str, folder: Path) -> PreTrainedModel:
    """A model of that family, also on disk. It was made for 4 x 4 patches."""
    model_type, patch, more, _ = FAMILIES[family]
    config = AutoConfig.for_model(model_type, patch_size=patch, image_size=4 * patch, **SMALL, **more)
    torch.manual_seed(5)
    model = AutoModel.from_config(config).eval()
    model.save_pretrained(folder)
    return model


def source_of(family: str, folder: Path, **changes: object) -> ViTFeatures:
    patch = FAMILIES[family][1]
    options: dict = {"patch_size": patch, "side": 4 * patch, "layer": 0, "facet": "token"}
    return ViTFeatures(str(folder), family, **{**options, **changes})


@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_and_facets_are_those_of_the_model(family: str, tmp_path: Path) -> None:
    model = saved(family, tmp_path)
    _, patch, _, prefix = FAMILIES[family]
    pixels = imagenet_pixels(IMAGE, 4 * patch)[None]
    with torch.no_grad():
        out = model(pixels, output_hidden_states=True)
    assert out.last_hidden_state.shape[1] == prefix + 16

    def grid(tokens: Tensor) -> Tensor:
        return tokens[0, prefix:].T.reshape(-1, 4, 4)

    torch.testing.assert_close(source_of(family, tmp_path)(IMAGE, "a"), grid(out.hidden_states[1]))
    # the last block's tokens are what the model normalises at its end
    last = source_of(family, tmp_path, layer=-1)(IMAGE, "a")
    norm = getattr(model, "layernorm", None) or model.norm
    torch.testing.assert_close(norm(last.flatten(1).T), out.last_hidden_state[0, prefix:])
    weights = {name.partition(".")[2]: w for name, w in model.state_dict().items() if ".2." in f".{name}"}
    weights = {name[name.index("2.") + 2 :] if "2." in name else name: w for name, w in weights.items()}
    before = next(name for name in weights if name in ("layernorm_before.weight", "norm1.weight"))
    normed = F.layer_norm(
        out.hidden_states[2],
        (16,),
        weights[before],
        weights[before.replace("weight", "bias")],
        model.config.layer_norm_eps,
    )
    for facet in FACETS[1:]:
        (name,) = (n for n in weights if n.endswith((f"{facet[0]}_proj.weight", f".{facet}.weight")))
        projected = F.linear(normed, weights[name], weights.get(name.replace("weight", "bias")))
        found = source_of(family, tmp_path, layer=2, facet=facet)(IMAGE, "a")
        torch.testing.assert_close(found, grid(projected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_cells_lie_where_their_patches_are(family: str, tmp_path: Path) -> None:
    """Keys of the first block have not seen other patches: one changed patch changes one cell."""
    saved(family, tmp_path)
    patch = FAMILIES[family][1]
    source = source_of(family, tmp_path, facet="key", side=6 * patch)  # not the size it was made for
    image = image_of(0, 6 * patch, 6 * patch)
    changed = image.copy()
    changed[2 * patch : 3 * patch, 5 * patch :] = 255 - changed[2 * patch : 3 * patch, 5 * patch :]
    differs = (source(image, "a") - source(changed, "b")).abs().amax(0) > 1e-6
    assert torch.nonzero(differs).tolist() == [[2, 5]]


def test_random_weights_are_the_same_each_time() -> None:
    first, second = (
        ViTFeatures("none", "dinov3", 16, 32, weights="random", architecture=SMALL) for _ in range(2)
    )
    torch.testing.assert_close(first(IMAGE, "a"), second(IMAGE, "b"), rtol=0, atol=0)
    assert first(IMAGE, "a").shape == (16, 2, 2)


def test_no_code_of_a_folder_is_run(tmp_path: Path) -> None:
    model = saved("dino", tmp_path / "m")
    trap = tmp_path / "trap"
    (tmp_path / "m" / "evil.py").write_text(
        f"open({str(trap)!r}, 'w')\nclass Model: pass\nclass Config: pass\n"
    )
    file = tmp_path / "m" / "config.json"
    config = json.loads(file.read_text())
    config["auto_map"] = {"AutoModel": "evil.Model", "AutoConfig": "evil.Config"}
    file.write_text(json.dumps(config))
    found = source_of("dino", tmp_path / "m")(IMAGE, "a")
    assert not trap.exists()
    assert found.shape == (model.config.hidden_size, 4, 4)


@pytest.mark.parametrize(
    ("changes", "error", "told"),
    [
        ({"facet": "keys"}, UnknownNameError, "unknown facet 'keys'; known: token, query, key, value"),
        ({"layer": 3}, LayerError, r"block in -3\.\.2, found 3: change layer"),
        ({"side": 30}, BackboneError, "multiple of patch_size 8, found 30: use 32"),
        ({"patch_size": 4, "side": 32}, BackboneError, "patches of 4 pixels in .*, found 8"),
        ({"family": "dinov2"}, BackboneError, "type 'dinov2' in .*, found 'vit': set family"),
        ({"family": "dinov4"}, UnknownNameError, "dino, dinov2, dinov2_registers, dinov3"),
        ({"weights": "none"}, UnknownNameError, "pretrained, random"),
        (
            {"weights": "random", "architecture": {"hidden_size": 7}},
            BackboneError,
            "vit model .* in architecture",
        ),
        ({"path_or_name": "/nowhere/model"}, BackboneError, "found '/nowhere/model': docs/methods.md"),
    ],
)
def test_wrong_options_are_one_line(changes: dict, error: type, told: str, tmp_path: Path) -> None:
    saved("dino", tmp_path)
    options = {"path_or_name": str(tmp_path), "family": "dino", "patch_size": 8, "side": 32, **changes}
    with pytest.raises(error, match=told) as caught:
        ViTFeatures(**options)
    assert "\n" not in str(caught.value)


def test_folders_that_hold_no_such_model(tmp_path: Path) -> None:
    saved("dino", tmp_path)
    weights = tmp_path / "model.safetensors"
    kept = weights.read_bytes()
    weights.write_bytes(kept[:1000])
    with pytest.raises(BackboneError, match="expected a vit model") as caught:
        source_of("dino", tmp_path)
    assert "\n" not in str(caught.value)
    weights.write_bytes(kept)
    stored = load_file(weights)
    part = [name for name in stored if "layer.1." in name or "layers.1." in name]
    save_file({name: w for name, w in stored.items() if name not in part}, weights, {"format": "pt"})
    with pytest.raises(BackboneError, match=f"all weights of a vit model .* and {len(part) - 1} more"):
        source_of("dino", tmp_path)
    weights.rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(BackboneError, match=r"expected \*\.safetensors in .*convert the weights"):
        source_of("dino", tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(BackboneError, match=r"expected config\.json in"):
        source_of("dino", tmp_path)


# torchvision's numbers of the convolutions, and the paper's channels (configuration E)
CONVOLUTIONS = [0, 2, 5, 7, 10, 12, 14, 16, 19, 21, 23, 25, 28, 30, 32, 34]
CHANNELS = [64] * 2 + [128] * 2 + [256] * 4 + [512] * 8


def test_vgg_has_the_published_layout() -> None:
    with torch.device("meta"):
        model = VGG19(len(layer_names()))
    shapes = {name: tuple(w.shape) for name, w in model.state_dict().items()}
    expected = {}
    for number, before, channels in zip(CONVOLUTIONS, [3, *CHANNELS], CHANNELS, strict=False):
        expected[f"features.{number}.weight"] = (channels, before, 3, 3)
        expected[f"features.{number}.bias"] = (channels,)
    assert shapes == expected
    assert sum(w.numel() for w in model.state_dict().values()) == 20_024_384
    assert [layer_names().index(f"relu{i}_1") for i in range(1, 6)] == [1, 6, 11, 20, 29]


def test_vgg_features_by_hand(tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = {
        f"features.{number}.{kind}": torch.randn(
            *([channels, before, 3, 3] if kind == "weight" else [channels])
        )
        / 20
        for number, before, channels in zip(CONVOLUTIONS[:5], [3, *CHANNELS], CHANNELS, strict=False)
        for kind in ("weight", "bias")
    }
    file = tmp_path / "vgg.safetensors"
    save_file({**state, "classifier.0.weight": torch.zeros(2, 2)}, file)
    x = imagenet_pixels(IMAGE, 24)[None]
    conv = lambda x, n: F.conv2d(x, state[f"features.{n}.weight"], state[f"features.{n}.bias"], padding=1)  # noqa: E731
    x = F.max_pool2d(conv(conv(x, 0).relu(), 2).relu(), 2)
    x = conv(x, 5).relu()
    second = conv(x, 7)
    third = conv(F.max_pool2d(second.relu(), 2), 10).relu()
    for layer, expected in (("conv2_2", second), ("relu3_1", third)):
        found = VGGFeatures(str(file), layer, 24)(IMAGE, "a")
        torch.testing.assert_close(found, expected[0])


def test_pixels_are_normalised_as_imagenet_wants() -> None:
    image = np.full((5, 9, 3), (255, 0, 51), dtype=np.uint8)
    found = imagenet_pixels(image, 4)
    assert found.shape == (3, 4, 4)
    expected = [(1 - 0.485) / 0.229, -0.456 / 0.224, (0.2 - 0.406) / 0.225]
    torch.testing.assert_close(found[:, 1, 2], torch.tensor(expected))


def test_vgg_without_the_right_file_is_one_line(tmp_path: Path) -> None:
    text = tmp_path / "vgg.pth"
    text.write_text("no weights")
    other = tmp_path / "other.safetensors"
    save_file({"features.0.weight": torch.zeros(2)}, other)
    for path, told in (
        (None, "features.path, found none"),
        ("/nowhere/vgg.safetensors", "found no file '/nowhere/vgg.safetensors': docs/methods.md"),
        (str(text), "expected safetensors in .*vgg.pth"),
        (str(other), r"features.0.weight of shape \(64, 3, 3, 3\) in .*, found \(2,\)"),
    ):
        with pytest.raises(BackboneError, match=told) as caught:
            VGGFeatures(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(UnknownNameError, match="conv1_1, relu1_1, conv1_2"):
        VGGFeatures(layer="relu6_1", weights="random")
    with pytest.raises(BackboneError, match="side of at least 8 for relu4_1, found 7"):
        VGGFeatures(side=7, weights="random")


class Fixed(FeatureSource):
    """The same features for every image; counts how often it is asked."""

    def __init__(self, features: Tensor, **options: object) -> None:
        super().__init__(features.shape[-1], **options)
        self.features, self.asked = features, []

    def compute(self, image: UInt8Image, key: str, prompt: str) -> Tensor:
        self.asked.append((key, prompt))
        return self.features


def test_fused_cosines_are_a_weighted_mean() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randn(d, 3, 3, generator=generator) * 10 for d in (4, 6))
    fused = FusedFeatures(Fixed(first), Fixed(second), weight=0.2)(IMAGE, "a").flatten(1)
    assert fused.shape == (10, 9)
    found = F.cosine_similarity(fused[:, 1], fused[:, 7], dim=0)
    single = [F.cosine_similarity(f.flatten(1)[:, 1], f.flatten(1)[:, 7], dim=0) for f in (first, second)]
    torch.testing.assert_close(found, (0.04 * single[0] + 0.64 * single[1]) / 0.68)
    for weight, alone in ((1, first), (0, second)):
        ends = F.normalize(FusedFeatures(Fixed(first), Fixed(second), weight)(IMAGE, "a"), dim=0)
        kept = ends[:4] if weight else ends[4:]
        torch.testing.assert_close(kept, F.normalize(alone, dim=0))


def test_fused_grids_cover_the_same_image() -> None:
    """A ramp from left to right stays one, whatever the grids."""
    ramp = lambda n: torch.stack([torch.linspace(0.5 / n, 1 - 0.5 / n, n).expand(n, n), torch.ones(n, n)])  # noqa: E731
    fused = FusedFeatures(Fixed(ramp(4)), Fixed(ramp(12)), grid=6)(IMAGE, "a")
    assert fused.shape == (4, 6, 6)
    slopes = fused[[0, 2]] / fused[[1, 3]]  # both were divided by their norm
    torch.testing.assert_close(slopes[0, :, 1:-1], ramp(6)[0, :, 1:-1], rtol=0.03, atol=0)
    torch.testing.assert_close(slopes[1, :, 1:-1], ramp(6)[0, :, 1:-1], rtol=0.03, atol=0)


def test_categories_reach_the_sources_that_ask_for_them() -> None:
    asks, does_not = (
        Fixed(torch.ones(2, 2, 2), prompt="a {category}"),
        Fixed(torch.ones(2, 2, 2), prompt="a cat"),
    )
    fused = FusedFeatures(asks, does_not)
    for category in ("cat", "dog", "cat"):
        fused(IMAGE, "a", category)
    assert asks.asked == [("a", "a cat"), ("a", "a dog")]
    assert does_not.asked == [("a", "a cat")]
    assert fused.uses_category
    assert not FusedFeatures(does_not, does_not).uses_category


def test_what_was_used_last_is_kept() -> None:
    source = Fixed(torch.ones(2, 2, 2), cache_size=2)
    for key in "abacab":
        source(IMAGE, key)
    assert [key for key, _ in source.asked] == ["a", "b", "c", "b"]
    without = Fixed(torch.ones(2, 2, 2), cache_size=0)
    for key in "aa":
        without(IMAGE, key)
    assert len(without.asked) == 2


def test_wrong_options_of_the_others_are_one_line() -> None:
    backbone = tiny_backbone()
    with pytest.raises(DiffcorrError, match=r"no field but \{category\}, found 'a \{cat\}'"):
        UNetFeatures(backbone, prompt="a {cat}")
    source = Fixed(torch.ones(2, 2, 2))
    with pytest.raises(DiffcorrError, match=r"0\.\.1, found 1\.5"):
        FusedFeatures(source, source, 1.5)
    with pytest.raises(DiffcorrError, match="at least 1 cell, found 0"):
        FusedFeatures(source, source, grid=0)
