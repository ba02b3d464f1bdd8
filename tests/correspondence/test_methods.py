"""What every correspondence method in configs/method has to keep, and what each one finds."""

import dataclasses
from pathlib import Path

import hydra
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from omegaconf import DictConfig

from diffcorr.attention import MeanAttention
from diffcorr.backbones import UNetBackbone
from diffcorr.config import config_folder, config_hash, instantiate
from diffcorr.correspondence import (
    DIFT,
    Chance,
    ColourNN,
    CopyPosition,
    CorrespondenceMethod,
    PromptFit,
    SeededDraws,
    build_method,
)
from diffcorr.correspondence.features import cosine_maps, sample
from diffcorr.errors import BackboneError, ImageError
from diffcorr.stores.embeddings import EmbeddingStore
from diffcorr.types import Pair, UInt8Image
from tests.helpers.fit_reference import image_of
from tests.helpers.tiny_models import save_tiny_pipeline, tiny_backbone

SOURCE, TARGET = image_of(0, 48, 40), image_of(1, 60, 36)
POINTS = ((5.0, 6.0), (30.5, 33.0), (47.9, 0.0))


def pair_of(source: UInt8Image, target: UInt8Image, points: tuple[tuple[float, float], ...] = POINTS) -> Pair:
    sizes = [(image.shape[1], image.shape[0]) for image in (source, target)]
    names = tuple(f"k{i}" for i in range(len(points)))
    box = (0.0, 0.0, 10.0, 10.0)
    return Pair("p", "toy", "fish", "a", "b", names, points, points, box, box, *sizes)


def composed(name: str, seed: int = 0) -> DictConfig:
    """The method's config inside the smallest run that has all it refers to."""
    with hydra.initialize_config_dir(str(config_folder()), version_base="1.3"):
        return hydra.compose(overrides=[f"+method={name}", "+attention=mean", f"+seed={seed}"]).method


METHODS = [path.stem for path in sorted((config_folder() / "method").glob("*.yaml"))]
METHODS = [name for name in METHODS if "diffcorr.correspondence" in composed(name)._target_]


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> UNetBackbone:
    return UNetBackbone.from_pretrained(save_tiny_pipeline(tmp_path_factory.mktemp("model")))


TINY_FEATURES = {  # by class, where weights would have to be at hand
    "ViTFeatures": {
        "weights": "random",
        "layer": 1,
        "architecture": {
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 32,
        },
    },
    "VGGFeatures": {"weights": "random", "side": 32, "layer": "relu2_2"},
}


def shrink(config: DictConfig) -> None:
    """Random weights at toy size for each source of features in a method's config."""
    for node in config.values():
        if isinstance(node, DictConfig) and "_target_" in node:
            node.update(TINY_FEATURES.get(node._target_.rpartition(".")[2], {}))
            if "patch_size" in node:
                node.side = 4 * node.patch_size
            if "grid" in node:
                node.grid = 5
            shrink(node)


def build(name: str, backbone: UNetBackbone, seed: int = 0) -> CorrespondenceMethod:
    config = composed(name, seed)
    shrink(config)
    if "fit" in config:  # the same code, but seconds
        config.fit.update({"steps": 3, "rounds": 2, "loss_resolution": 16})
        config.transfer.num_crops = 4 if config.transfer.crops == "grid" else 5
    return build_method(instantiate(config), backbone, MeanAttention())


@pytest.mark.parametrize("name", METHODS)
def test_contract(name: str, backbone: UNetBackbone) -> None:
    method = build(name, backbone)
    assert isinstance(method, CorrespondenceMethod)
    pair = pair_of(SOURCE, TARGET)
    found = method.predict(pair, SOURCE, TARGET)
    assert [p.keypoint for p in found] == list(pair.keypoints)
    assert [p.query_id for p in found] == ["toy/a/k0", "toy/a/k1", "toy/a/k2"]
    assert all(0 <= p.x <= 60 and 0 <= p.y <= 36 and 0 <= p.confidence <= 1 for p in found)
    # the same again, after something else, from a new object
    other = build(name, backbone)
    other.predict(pair_of(TARGET, SOURCE, ((1.0, 2.0),)), TARGET, SOURCE)
    again = build(name, backbone).predict(pair, SOURCE, TARGET)
    assert again == found
    assert method.predict(pair, SOURCE, TARGET) == found
    assert method.predict(pair_of(SOURCE, TARGET, ()), SOURCE, TARGET) == []


@pytest.mark.parametrize("name", METHODS)
def test_a_point_outside_its_image(name: str, backbone: UNetBackbone) -> None:
    with pytest.raises(ImageError, match="query toy/a/k0 inside its image of 48x40"):
        build(name, backbone).predict(pair_of(SOURCE, TARGET, ((48.5, 3.0),)), SOURCE, TARGET)


def test_all_methods_have_a_config() -> None:
    wanted = "prompt_fit prompt_fit_paper prompt_fit_reference packed prompt_fit_rerank "
    wanted += "dift dino dinov2 dinov3 vgg fusion dift_mls dino_mls vgg_mls colour_nn copy_position chance"
    assert set(wanted.split()) <= set(METHODS)


def test_the_page_of_methods_names_every_config() -> None:
    page = Path(__file__).parents[2] / "docs" / "methods.md"
    rows = {line.split("`")[1] for line in page.read_text().splitlines() if line.startswith("| `")}
    assert set(METHODS) <= rows


def test_presets_differ_where_the_paper_and_the_program_do(backbone: UNetBackbone) -> None:
    def preset(name: str) -> PromptFit:
        return instantiate(composed(f"prompt_fit_{name}"))(backbone=backbone)

    paper, reference = preset("paper"), preset("reference")
    assert (paper.transfer_config.timestep, reference.transfer_config.timestep) == (140, 40)
    assert (paper.fit_config.loss, reference.fit_config.loss) == ("mean_map", "per_layer")
    assert (paper.transfer_config.readout, reference.transfer_config.readout) == ("mean", "softmax_mean")
    assert (paper.fit_config.noise, reference.fit_config.noise) == ("gaussian", "uniform")
    for method in (paper, reference):
        assert method.fit_config.sigma * 512 == pytest.approx(27.97853316316864, rel=1e-12)
        assert method.fit_config.timestep == 140


def test_colour_nn_finds_the_same_picture_again() -> None:
    image = image_of(4, 64, 64)
    points = tuple((x + 0.5, y + 0.5) for x, y in [(3, 4), (30, 20), (60, 63)])
    found = ColourNN().predict(pair_of(image, image, points), image, image)
    assert [(p.x, p.y) for p in found] == list(points)
    assert all(p.confidence == 1 for p in found)
    shifted = np.roll(image, (6, 9), axis=(0, 1))
    moved = ColourNN().predict(pair_of(image, shifted, points[1:2]), image, shifted)
    assert (moved[0].x, moved[0].y) == (39.5, 26.5)


def test_copy_position_is_relative() -> None:
    found = CopyPosition().predict(pair_of(SOURCE, TARGET, ((12.0, 10.0),)), SOURCE, TARGET)
    assert (found[0].x, found[0].y) == (15.0, 9.0)


def test_chance_is_uniform_and_seeded() -> None:
    points = [
        (p.x / 60, p.y / 36)
        for seed in range(300)
        for p in Chance(seed).predict(pair_of(SOURCE, TARGET), SOURCE, TARGET)
    ]
    counts, _, _ = np.histogram2d(*np.array(points).T, bins=4, range=[[0, 1], [0, 1]])
    expected = len(points) / 16
    assert ((counts - expected) ** 2 / expected).sum() < 37.7  # chi-square, 15 degrees of freedom, p = 0.001
    assert len(set(points)) == len(points)


def test_dift_features_by_the_plain_route() -> None:
    """Strips and point sampling give what upsampling all features and comparing gives."""
    features = torch.randn(5, 6, 6, generator=torch.Generator().manual_seed(0))
    wanted = torch.randn(3, 5, generator=torch.Generator().manual_seed(1))
    large = F.interpolate(features[None], size=(40, 40), mode="bilinear")[0]
    cosines = F.cosine_similarity(wanted[:, :, None, None], large[None], dim=1)
    torch.testing.assert_close(cosine_maps(wanted, features, 40, 40, rows=7), cosines)
    picked = sample(features, torch.tensor([[0.3125, 0.7125]]))  # the centre of pixel (12, 28)
    torch.testing.assert_close(picked[0], large[:, 28, 12])


def test_dift_by_the_plain_route(backbone: UNetBackbone) -> None:
    """Encode, add noise, take the up block's output, average, enlarge, compare: in the paper's words."""
    method = build("dift", backbone)
    assert isinstance(method, DIFT)
    method.features.prompt = "a {category}"
    large = []
    for name, image in (("a", SOURCE), ("b", TARGET)):
        pixels = torch.tensor(image).permute(2, 0, 1)[None].float() / 127.5 - 1
        pixels = F.interpolate(pixels, (32, 32), mode="bilinear", antialias=True).clamp(-1, 1)
        draws = SeededDraws("dift", 0, f"toy/{name}")
        features = []
        for draw in range(8):
            latent = backbone.vae.encode(pixels).latent_dist.mean * 0.18215
            noise = draws.noise(draw, tuple(latent.shape[1:]), "gaussian")
            alpha = backbone.alphas_cumprod[261].float()
            noisy = alpha.sqrt() * latent + (1 - alpha).sqrt() * noise
            outputs: list[torch.Tensor] = []
            hook = backbone.unet.up_blocks[1].register_forward_hook(
                lambda m, a, out, to=outputs: to.append(out)
            )
            with torch.no_grad():
                backbone.unet(noisy, 261, backbone.encode_prompt(["a fish"])[0])
            hook.remove()
            features.append(outputs[0][0])
        mean = torch.stack(features).mean(0)
        large.append(F.interpolate(mean[None], size=(32, 32), mode="bilinear")[0])
    # the centres of pixels (7, 20) and (31, 2) of the square, in the source's own 48 x 40
    points = tuple(((x + 0.5) * 48 / 32, (y + 0.5) * 40 / 32) for x, y in ((7, 20), (31, 2)))
    found = method.predict(pair_of(SOURCE, TARGET, points), SOURCE, TARGET)
    for prediction, (x, y) in zip(found, ((7, 20), (31, 2)), strict=True):
        cosines = F.cosine_similarity(large[0][:, y, x, None, None], large[1], dim=0)
        row, column = divmod(int(cosines.argmax()), 32)
        assert (prediction.x, prediction.y) == pytest.approx(
            ((column + 0.5) * 60 / 32, (row + 0.5) * 36 / 32)
        )
        assert prediction.confidence == pytest.approx(float(cosines.max()), rel=1e-4)


def test_dift_finds_the_same_picture_again(backbone: UNetBackbone) -> None:
    image = image_of(4, 32, 32)
    pair = dataclasses.replace(pair_of(image, image, ((10.5, 20.5),)), target_id="a")  # the same noise too
    (found,) = build("dift", backbone).predict(pair, image, image)
    assert (found.x, found.y) == (10.5, 20.5)
    assert found.confidence == pytest.approx(1)


def test_dift_without_text_encoder() -> None:
    method = build("dift", tiny_backbone())
    with pytest.raises(BackboneError, match="text encoder"):
        method.predict(pair_of(SOURCE, TARGET), SOURCE, TARGET)


def test_queries_are_fitted_once_and_stored(tmp_path: Path, backbone: UNetBackbone) -> None:
    name = "prompt_fit"
    method = build(name, backbone)
    assert isinstance(method, PromptFit)
    expected = method.predict(pair_of(SOURCE, TARGET), SOURCE, TARGET)
    identity = config_hash(method.identity())
    with EmbeddingStore(tmp_path / "store", backbone.fingerprint, identity) as store:
        first = build(name, backbone)
        assert isinstance(first, PromptFit)
        first.embeddings = store
        first.fit(pair_of(SOURCE, TARGET).queries(), {"a": SOURCE})
    with EmbeddingStore(tmp_path / "store", backbone.fingerprint, identity) as store:
        second = build(name, backbone)
        assert isinstance(second, PromptFit)
        second.embeddings = store
        assert second.missing(pair_of(SOURCE, TARGET).queries() * 2) == []
        found = second.predict(pair_of(SOURCE, TARGET), SOURCE, TARGET)
    assert found == expected
