import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from torch._dynamo.utils import counters

from diffcorr.attention import capture
from diffcorr.backbones import UNetBackbone
from diffcorr.backbones.catalog import CATALOG, TINY_FOLDER
from diffcorr.config import config_folder, instantiate
from diffcorr.errors import BackboneError, DiffcorrError, LayerError, UnknownNameError
from tests.helpers.tiny_models import IMAGE_SIZE, NUM_TOKENS, WIDTH, save_tiny_pipeline, tiny_backbone


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_pipeline(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def loaded(folder: Path) -> UNetBackbone:
    return UNetBackbone.from_pretrained(folder)


def test_a_folder_says_all_about_itself(loaded: UNetBackbone) -> None:
    assert loaded.image_size == IMAGE_SIZE
    assert loaded.latent_downscale == 4
    assert loaded.embedding_shape == (NUM_TOKENS, WIDTH)
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    assert not loaded.train().training


def test_encode_is_the_scaled_mean(loaded: UNetBackbone) -> None:
    images = torch.rand(2, 3, IMAGE_SIZE, IMAGE_SIZE) * 2 - 1
    expected = loaded.vae.encode(images).latent_dist.mode() * 0.18215
    torch.testing.assert_close(loaded.encode(images), expected)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
def test_compiled_blocks_change_nothing_but_speed(folder: Path, loaded: UNetBackbone) -> None:
    compiled = UNetBackbone.from_pretrained(folder, compile_blocks=True)
    before = sum(counters["frames"].values())
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    found = []
    for model in (loaded, compiled):
        prompts = torch.ones(2, NUM_TOKENS, WIDTH, requires_grad=True)
        with capture(model, "all", token=1) as maps:
            model.denoise(latents, 140, prompts)
        read = torch.stack([m.tensor.square().sum() for m in maps.values()]).sum()
        found.append((read, *torch.autograd.grad(read, prompts)))
    assert sum(counters["frames"].values()) > before  # something was compiled
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-6)


def test_encode_with_shift() -> None:
    backbone = tiny_backbone()
    images = torch.rand(1, 3, IMAGE_SIZE, IMAGE_SIZE)
    plain = backbone.encode(images)
    backbone.vae.register_to_config(shift_factor=0.5)
    torch.testing.assert_close(backbone.encode(images), plain - 0.5 * 0.18215)


def test_noise_is_the_schedulers(folder: Path, loaded: UNetBackbone) -> None:
    from diffusers import DDIMScheduler

    scheduler = DDIMScheduler.from_pretrained(folder, subfolder="scheduler")
    latents, noise = torch.randn(2, 1, 4, 8, 8)
    for timestep in (0, 140, 999):
        expected = scheduler.add_noise(latents, noise, torch.tensor([timestep]))
        torch.testing.assert_close(loaded.add_noise(latents, noise, timestep), expected)
    with pytest.raises(BackboneError, match=r"timestep in 0\.\.999, found 1000"):
        loaded.add_noise(latents, noise, 1000)


def test_half_precision_leaves_the_schedule_alone(folder: Path, loaded: UNetBackbone) -> None:
    half = UNetBackbone.from_pretrained(folder, dtype="bfloat16")
    assert half.dtype == torch.bfloat16
    noise = torch.randn(1, 4, 8, 8)
    assert torch.equal(half.add_noise(noise, noise, 500), loaded.add_noise(noise, noise, 500))


def test_prompts_are_the_pipelines(folder: Path, loaded: UNetBackbone) -> None:
    pipeline = StableDiffusionPipeline(
        vae=loaded.vae,
        unet=loaded.unet,
        text_encoder=loaded.text_encoder,
        tokenizer=loaded.tokenizer,
        scheduler=None,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    expected, negative = pipeline.encode_prompt("red cat", "cpu", 1, True)
    embeds, tokens = loaded.encode_prompt(["red cat"])
    torch.testing.assert_close(embeds, expected)
    torch.testing.assert_close(loaded.null_prompt(), negative)
    assert tokens[0][:5] == ["<|startoftext|>", "red</w>", "c", "a", "t</w>"]
    assert len(tokens[0]) == NUM_TOKENS


def test_denoise_is_the_unet(loaded: UNetBackbone) -> None:
    latents = torch.randn(2, 4, 8, 8)
    embeds = loaded.null_prompt()
    expected = loaded.unet(latents, 7, embeds.repeat(2, 1, 1)).sample
    torch.testing.assert_close(loaded.denoise(latents, 7, embeds), expected)


def test_features_are_what_the_up_block_gives(loaded: UNetBackbone) -> None:
    latents, embeds = torch.randn(2, 4, 8, 8), loaded.null_prompt()
    seen = []
    handle = loaded.unet.up_blocks[0].register_forward_hook(lambda m, a, out: seen.append(out))
    loaded.denoise(latents, 7, embeds)
    handle.remove()
    found = loaded.features(latents, 7, embeds, block=0)
    torch.testing.assert_close(found, seen[0])
    assert not loaded.unet.up_blocks[0]._forward_hooks
    with pytest.raises(UnknownNameError, match=r"up block of .* 5; known: 0, 1"):
        loaded.features(latents, 7, embeds, block=5)


def test_layers_are_counted_down_mid_up(loaded: UNetBackbone) -> None:
    cross = loaded.layers("cross")
    assert [layer.index for layer in cross] == list(range(7))
    assert [layer.downscale for layer in cross] == [1, 2, 2, 2, 2, 1, 1]
    assert [layer.name.split(".")[0] for layer in cross] == ["down_blocks"] * 2 + ["mid_block"] + [
        "up_blocks"
    ] * 4
    assert all(layer.name.endswith("attn2") and layer.num_heads == 4 for layer in cross)
    assert [layer.name for layer in loaded.layers("self")] == [layer.name[:-1] + "1" for layer in cross]
    assert loaded.paper_layers == (3, 4, 5)


def test_layers_by_any_name(loaded: UNetBackbone) -> None:
    names = [layer.name for layer in loaded.layers("cross")]
    assert [layer.index for layer in loaded.resolve_layers("cross", [5, names[3], 5])] == [3, 5]
    assert [layer.index for layer in loaded.resolve_layers("cross", "paper")] == [3, 4, 5]
    assert len(loaded.resolve_layers("self", "all")) == 7
    with pytest.raises(UnknownNameError, match=r"cross-attention layer of .* 16; known: 0=down_blocks\.0"):
        loaded.resolve_layers("cross", [16])
    with pytest.raises(UnknownNameError, match="'nowhere'"):
        loaded.resolve_layers("cross", "nowhere")
    with pytest.raises(LayerError, match="at least one"):
        loaded.resolve_layers("cross", [])
    with pytest.raises(LayerError, match="'paper'"):
        loaded.resolve_layers("self", "paper")


def test_fingerprint_knows_the_weights_and_nothing_else(folder: Path, loaded: UNetBackbone) -> None:
    assert (
        UNetBackbone.from_pretrained(folder, dtype="bfloat16", name="other").fingerprint == loaded.fingerprint
    )
    assert tiny_backbone(seed=0).fingerprint == tiny_backbone(seed=0).fingerprint
    assert tiny_backbone(seed=5).fingerprint != tiny_backbone(seed=0).fingerprint


def test_random_weights_have_the_folders_architecture(folder: Path, loaded: UNetBackbone) -> None:
    built = UNetBackbone.from_pretrained(folder, weights="random")
    assert {n: p.shape for n, p in built.unet.named_parameters()} == {
        n: p.shape for n, p in loaded.unet.named_parameters()
    }
    assert built.fingerprint != loaded.fingerprint
    assert built.null_prompt().shape == (1, *built.embedding_shape)
    assert torch.equal(
        built.null_prompt(), UNetBackbone.from_pretrained(folder, weights="random").null_prompt()
    )


@pytest.mark.parametrize(("name", "num_parameters"), [("sd15", 859_520_964), ("sd21", 865_910_724)])
def test_catalog_has_the_true_architectures(name: str, num_parameters: int) -> None:
    """Published sizes of the two U-Nets; built without memory."""
    from diffusers import UNet2DConditionModel

    config = CATALOG[name].denoiser
    assert config is not None
    with torch.device("meta"):
        unet = UNet2DConditionModel(**config)
    assert sum(p.numel() for p in unet.parameters()) == num_parameters


def test_missing_text_encoder(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "unet").symlink_to(folder / "unet")
    (tmp_path / "vae").symlink_to(folder / "vae")
    backbone = UNetBackbone.from_pretrained(tmp_path)
    assert backbone.embedding_shape == (77, WIDTH)
    with pytest.raises(BackboneError, match="expected a text encoder and a tokenizer"):
        backbone.null_prompt()


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match=r"found no unet/config\.json"):
        UNetBackbone.from_pretrained(tmp_path)
    for part in ("unet", "vae"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "config.json").write_text(json.dumps({"_class_name": "UNet2DConditionModel"}))
    with pytest.raises(BackboneError, match="found: ") as caught:
        UNetBackbone.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)


def test_pickled_weights_are_refused(folder: Path, tmp_path: Path) -> None:
    for part in ("unet", "vae"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "config.json").write_text((folder / part / "config.json").read_text())
        torch.save({}, tmp_path / part / "diffusion_pytorch_model.bin")
    with pytest.raises(BackboneError, match="safetensors"):
        UNetBackbone.from_pretrained(tmp_path)


def test_unknown_names() -> None:
    with pytest.raises(UnknownNameError, match="unknown backbone 'sd99'; known: tiny, sd14, sd15, sd21"):
        UNetBackbone.from_pretrained("sd99")
    with pytest.raises(UnknownNameError, match="backbone"):
        UNetBackbone.from_pretrained("/does/not/exist")


def test_unknown_options(folder: Path) -> None:
    with pytest.raises(UnknownNameError, match="weights 'frozen'"):
        UNetBackbone.from_pretrained(folder, weights="frozen")  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="dtype 'float3'"):
        UNetBackbone.from_pretrained(folder, dtype="float3")
    with pytest.raises(UnknownNameError, match="layer"):
        UNetBackbone.from_pretrained(folder, paper_layers=[99])


def test_every_config_names_a_backbone(folder: Path) -> None:
    from omegaconf import OmegaConf

    files = sorted((config_folder() / "backbone").glob("*.yaml"))
    assert files
    for file in files:
        config = OmegaConf.load(file)
        assert (
            config.path_or_name in CATALOG
            if file.stem != "local"
            else OmegaConf.is_missing(config, "path_or_name")
        )
    local = OmegaConf.load(config_folder() / "backbone" / "local.yaml")
    assert instantiate(local, path_or_name=str(folder)).image_size == IMAGE_SIZE
    with pytest.raises(DiffcorrError, match="path_or_name"):
        instantiate(local)


@pytest.mark.skipif(not TINY_FOLDER.is_dir(), reason="the embedded model has not been trained yet")
def test_the_embedded_model_loads() -> None:
    from omegaconf import OmegaConf

    backbone = instantiate(OmegaConf.load(config_folder() / "backbone" / "tiny.yaml"))
    assert backbone.image_size == 64
    assert backbone.null_prompt().shape == (1, *backbone.embedding_shape)
