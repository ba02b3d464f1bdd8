"""The whole pretraining recipe at tiny size: real stages, real files, and the promises about them."""

import functools
import json

import lightning
import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from safetensors.torch import load_file
from transformers import CLIPTokenizer

from diffcorr.data.image_cache import ImageCache, square
from diffcorr.data.imagefolder import CaptionedImageFolder
from diffcorr.data.images import read_image
from diffcorr.errors import BackboneError, DataError, ImageError
from diffcorr.pretraining.diffusion import DiffusionModule, sd_scheduler
from diffcorr.pretraining.export import sample
from diffcorr.pretraining.recipe import Pretraining, StageConfig
from diffcorr.pretraining.tokenizer import train_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("captioned")
    rng = np.random.default_rng(0)
    lines = []
    for i in range(12):
        colour = ["red", "green", "blue"][i % 3]
        pixels = np.zeros((20 + i, 24, 3), np.uint8)
        pixels[..., i % 3] = 200
        pixels += rng.integers(0, 40, pixels.shape, dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"{i}.png")
        lines.append(json.dumps({"file_name": f"{i}.png", "text": f"a {colour} square"}))
    (root / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return root


def recipe(folder, work, steps=3):
    return Pretraining(
        CaptionedImageFolder(str(folder)),
        str(work),
        str(work / "model"),
        image_size=16,
        vae={
            "down_block_types": ["DownEncoderBlock2D"] * 2,
            "up_block_types": ["UpDecoderBlock2D"] * 2,
            "block_out_channels": [8, 16],
            "latent_channels": 4,
            "norm_num_groups": 4,
        },
        unet={
            "block_out_channels": [16, 32],
            "layers_per_block": 1,
            "norm_num_groups": 4,
            "down_block_types": ["CrossAttnDownBlock2D"] * 2,
            "up_block_types": ["CrossAttnUpBlock2D"] * 2,
            "attention_head_dim": 2,
        },
        text_encoder={
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
        },
        tokenizer={"vocab_size": 300, "max_length": 10},
        autoencoder_stage=StageConfig(steps, 4, 1e-3, {"kl_weight": 1e-3}),
        diffusion_stage=StageConfig(steps, 4, 1e-3, {"ema_decay": 0.5}),
        num_workers=1,
    )


def maker():
    return functools.partial(
        lightning.Trainer,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )


def test_recipe_gives_a_pipeline_that_diffusers_loads_and_samples_from(folder, tmp_path):
    model = recipe(folder, tmp_path).run(maker())
    pipeline = StableDiffusionPipeline.from_pretrained(model, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    first = sample(pipeline, ["a red square", "a blue square"], seed=3, steps=2)
    again = sample(pipeline, ["a red square", "a blue square"], seed=3, steps=2)
    assert [i.shape for i in first] == [(16, 16, 3)] * 2
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert {p.suffix for p in model.rglob("*") if p.is_file()} <= {".json", ".safetensors", ".txt"}
    weights = load_file(model / "unet" / "diffusion_pytorch_model.safetensors")
    assert all(v.dtype == torch.float16 for v in weights.values())
    report = json.loads((model / "training.json").read_text())
    assert report["diffusion"]["steps"] == 3


def test_latents_have_unit_deviation(folder, tmp_path):
    made = recipe(folder, tmp_path)
    made.run(maker())
    latents = np.load(tmp_path / "latents.npy", allow_pickle=False)
    assert latents.astype(np.float32).std() == pytest.approx(1, abs=1e-2)
    factor = json.loads((tmp_path / "scaling_factor.json").read_text())
    images = torch.as_tensor(np.load(tmp_path / "images" / "images.npy", allow_pickle=False)).float()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        mean = made.vae.encode(images.permute(0, 3, 1, 2) / 127.5 - 1).latent_dist.mean.float() * factor
    assert np.allclose(latents, mean.float().numpy(), atol=5e-2)  # a few steps of bf16


def test_a_run_that_was_cut_off_goes_on_where_it_stopped(folder, tmp_path):
    class CutOff(lightning.Callback):
        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            if trainer.global_step == 2:
                trainer.save_checkpoint(tmp_path / "diffusion" / "last.ckpt")
                raise KeyboardInterrupt

    with pytest.raises((KeyboardInterrupt, SystemExit)):
        recipe(folder, tmp_path, steps=5).run(maker(), lambda _: [CutOff()])
    stamp = (tmp_path / "vae" / "config.json").stat().st_mtime_ns
    model = recipe(folder, tmp_path, steps=5).run(maker())
    report = json.loads((model / "training.json").read_text())
    assert report["diffusion"]["resumed_at"] == 2
    assert report["diffusion"]["steps"] == 5
    assert "autoencoder" not in report
    assert (tmp_path / "vae" / "config.json").stat().st_mtime_ns == stamp


def test_going_on_from_a_trained_folder(folder, tmp_path):
    first = recipe(folder, tmp_path / "a").run(maker())
    further = recipe(folder, tmp_path / "b", steps=1)
    further.init_from = first
    further.stages["diffusion"].lr = 0.0  # so that what comes out is what went in
    model = further.run(maker())
    for part in ("unet", "text_encoder", "vae"):
        a, b = (next((m / part).glob("*.safetensors")) for m in (first, model))
        old, new = load_file(a), load_file(b)
        assert all(torch.allclose(old[k].float(), new[k].float(), atol=1e-3) for k in old)
    a, b = (json.loads((m / "vae" / "config.json").read_text())["scaling_factor"] for m in (first, model))
    assert a == pytest.approx(b)
    with pytest.raises(BackboneError, match="init_from"):
        Pretraining(folder, "", "", 16, {}, {}, {}, {}, None, None, init_from=str(tmp_path))


def test_noise_schedule_is_that_of_stable_diffusion():
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
    expected = torch.cumprod(1 - betas, 0)
    assert torch.allclose(sd_scheduler().alphas_cumprod.double(), expected, atol=1e-5)


def test_loss_weight_by_hand():
    snr = torch.tensor([0.04, 1.0, 4.0, 10.0])
    parts = {"sample_size": 4, "block_out_channels": [16, 32], "norm_num_groups": 4, "cross_attention_dim": 8}
    blocks = {"down_block_types": ["DownBlock2D"] * 2, "up_block_types": ["UpBlock2D"] * 2}
    text = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 8}

    def weight(**options):
        module = DiffusionModule({**parts, **blocks}, text, torch.zeros(4), lr=1e-3, max_steps=1, **options)
        return module.weight(snr)

    torch.testing.assert_close(weight(snr_gamma=0.0), torch.ones(4))
    torch.testing.assert_close(weight(snr_gamma=5.0), torch.tensor([1, 1, 1, 0.5]))
    emphasised = weight(snr_gamma=1.0, noisy_emphasis=0.5)  # 0.04 ** -0.5 = 5
    torch.testing.assert_close(emphasised, torch.tensor([5, 1, 0.25, 0.1]))


def test_tokenizer_round_trip_and_unknown_letters(tmp_path):
    captions = ["a red fish with blue fin"] * 5 + ["a green house on white sand"] * 5
    tokenizer = train_tokenizer(captions, tmp_path, vocab_size=400, max_length=12)
    assert tokenizer.tokenize("a red house") == ["a</w>", "red</w>", "house</w>"]
    ids = tokenizer("a red zèbra, 日", padding="max_length", truncation=True).input_ids
    assert len(ids) == 12
    assert (
        tokenizer.decode(tokenizer("A blue fish").input_ids, skip_special_tokens=True).strip()
        == "a blue fish"
    )
    assert CLIPTokenizer.from_pretrained(tmp_path).get_vocab() == tokenizer.get_vocab()


def test_square_is_the_mean_of_the_centre():
    image = np.zeros((4, 6, 3), np.uint8)
    image[:, 1:3] = 100
    assert square(image, 2)[..., 0].tolist() == [[100, 0], [100, 0]]


def test_cache_is_rebuilt_when_the_data_changes(folder, tmp_path):
    cache = ImageCache(tmp_path, CaptionedImageFolder(str(folder)), 8, num_workers=1)
    assert cache.images.shape == (12, 8, 8, 3)
    smaller = ImageCache(tmp_path, CaptionedImageFolder(str(folder), num_images=5), 8, num_workers=1)
    assert smaller.images.shape == (5, 8, 8, 3)
    assert list(smaller.captions) == list(cache.captions)[:5]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "found none"),
        ('{"file_name": "a.png"}', "line 1"),
        ('{"file_name": "../a.png", "text": "x"}', "inside of"),
    ],
)
def test_bad_metadata_is_one_line(tmp_path, text, message):
    (tmp_path / "metadata.jsonl").write_text(text)
    with pytest.raises(DataError, match=message) as error:
        CaptionedImageFolder(str(tmp_path))
    assert "\n" not in str(error.value)


def test_unreadable_and_truncated_images_are_one_line(tmp_path):
    with pytest.raises(ImageError, match="found no file"):
        read_image(tmp_path / "none.png")
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(ImageError, match="expected a readable"):
        read_image(tmp_path / "text.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(
        tmp_path / "a.png"
    )
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:3000])
    with pytest.raises(ImageError, match="expected a readable"):
        read_image(tmp_path / "cut.png")


def test_read_image_turns_upright_and_lays_transparency_on_white(tmp_path):
    pixels = np.zeros((2, 3, 3), np.uint8)
    pixels[0, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    assert read_image(tmp_path / "turned.png").shape == (3, 2, 3)
    assert read_image(tmp_path / "turned.png")[0, 1].tolist() == [255, 255, 255]
    Image.fromarray(np.zeros((2, 2, 4), np.uint8)).save(tmp_path / "clear.png")
    assert read_image(tmp_path / "clear.png").min() == 255
