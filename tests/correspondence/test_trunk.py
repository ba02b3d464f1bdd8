"""Prompts that are read without being followed, and crops that all queries of an image share."""

import dataclasses

import pytest
import torch

from diffcorr.attention import MeanAttention, capture, resize_maps
from diffcorr.attention.capture import read_prompts
from diffcorr.backbones import UNetBackbone
from diffcorr.correspondence import FitConfig, TransferConfig, compose_prompts, fit_prompts, transfer_grid
from diffcorr.correspondence.draws import SeededDraws
from diffcorr.correspondence.pack import PackFit
from diffcorr.errors import DiffcorrError
from diffcorr.types import Query
from tests.helpers.fit_reference import crop_latent, image_of
from tests.helpers.tiny_models import NUM_TOKENS, WIDTH, save_tiny_pipeline

MEAN = MeanAttention()
LAYERS = [3, 4, 5]
CONFIG = FitConfig(
    steps=5, lr=0.05, sigma=0.1, crop=0.6, rounds=2, layers=LAYERS, loss_resolution=None, trunk="null"
)
IMAGES = {"a": image_of(0, 48, 40), "b": image_of(1, 40, 48)}
POINTS = [(5.0, 6.0), (30.5, 33.0), (20.0, 20.0), (38.0, 2.0)]
QUERIES = [Query("toy", image, f"k{i}", point) for image in "ba" for i, point in enumerate(POINTS)]


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> UNetBackbone:
    return UNetBackbone.from_pretrained(save_tiny_pipeline(tmp_path_factory.mktemp("model")), dtype="float64")


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_the_empty_prompt_is_read_as_it_is_followed(backbone: UNetBackbone) -> None:
    latents, null = random(2, 4, 8, 8), backbone.null_prompt()
    noise = random(2, 4, 8, 8, seed=5)
    followed = read_prompts(backbone, latents, noise, 140, null.expand(2, -1, -1), LAYERS)
    read = read_prompts(backbone, latents, noise, 140, null.expand(2, -1, -1), LAYERS, trunk="null")
    assert list(read) == list(followed)
    for name, found in read.items():
        torch.testing.assert_close(found.tensor, followed[name].tensor)


def test_maps_and_gradients_by_hand(backbone: UNetBackbone) -> None:
    """Softmax of the empty prompt's image features with the prompts' keys, by the library's own functions."""
    clean, noise, rows = random(2, 4, 8, 8), random(2, 4, 8, 8, seed=5), [1, 0, 1]
    latents = backbone.add_noise(clean, noise, 140)
    prompts = random(3, NUM_TOKENS, WIDTH, seed=1).requires_grad_()
    maps = read_prompts(backbone, clean, noise, 140, prompts, LAYERS, token=2, rows=rows, trunk="null")
    seen: dict[str, torch.Tensor] = {}
    modules = backbone.attention_modules()
    handles = [
        modules[name].register_forward_pre_hook(lambda m, args, name=name: seen.update({name: args[0]}))
        for name in maps
    ]
    with torch.no_grad():
        backbone.denoise(latents, 140, backbone.null_prompt())
    for handle in handles:
        handle.remove()
    by_hand = []
    for name, found in maps.items():
        module = modules[name]
        query = module.head_to_batch_dim(module.to_q(seen[name][rows]))
        key = module.head_to_batch_dim(module.to_k(prompts))
        probs = module.get_attention_scores(query, key).unflatten(0, (3, -1)).mean(1)[..., 2]
        torch.testing.assert_close(found.tensor, probs)
        by_hand.append(probs.square().sum())
    (expected,) = torch.autograd.grad(torch.stack(by_hand).sum(), prompts)
    total = torch.stack([m.tensor.square().sum() for m in maps.values()]).sum()
    torch.testing.assert_close(torch.autograd.grad(total, prompts)[0], expected)
    assert not any(p.grad is not None for p in backbone.parameters())


@pytest.mark.parametrize("trunk", ["prompt", "null"])
def test_a_query_does_not_depend_on_its_company(backbone: UNetBackbone, trunk: str) -> None:
    config = dataclasses.replace(CONFIG, trunk=trunk, views="image", init="features", init_crops=3)
    prompts = compose_prompts(QUERIES, 2, "none", 1)
    together = fit_prompts(backbone, prompts, IMAGES, config, MEAN)
    for row, prompt in list(enumerate(prompts))[::5]:
        alone = fit_prompts(backbone, [prompt], IMAGES, config, MEAN)
        torch.testing.assert_close(together.embeddings[row], alone.embeddings[0], rtol=0, atol=1e-9)
        torch.testing.assert_close(together.losses[:, row], alone.losses[:, 0])


def test_queries_of_an_image_and_round_see_one_view(backbone: UNetBackbone) -> None:
    """The step's loss of each query, from the one crop and noise that are the image's, written out."""
    config = dataclasses.replace(CONFIG, views="image", crop=0.5)
    image = image_of(2, 32, 32)
    queries = [Query("toy", "c", f"k{i}", p) for i, p in enumerate([(5.0, 6.0), (30.5, 31.0), (20.0, 20.0)])]
    pack = PackFit(backbone, compose_prompts(queries, 1, "none", 1), {"c": image}, config, MEAN)
    draws = SeededDraws("fit", 0, "toy/c", 0)
    for step in range(5):  # the first four crops are the corners'
        x, y = draws.crop(step, (0, 0), (16, 16))
        noise = draws.noise(step, (4, 8, 8), "gaussian").double()
    latent = crop_latent(backbone, image, x, y, 16, False)
    alpha = backbone.alphas_cumprod[140]
    noisy = alpha.sqrt() * latent + (1 - alpha).sqrt() * noise
    assert [tuple(c[:2]) for c in pack._crops[0][:4]] == [(0, 0), (0, 16), (16, 0), (16, 16)]
    for step in range(5):
        found = pack.losses(step)
    shown = []
    for row, query in enumerate(queries):
        px, py = query.point[0] - x, query.point[1] - y
        shown.append(0 <= px <= 16 and 0 <= py <= 16)
        if not shown[-1]:
            assert found[row] == 0
            continue
        with (
            capture(backbone, LAYERS, token=1, prompts_NPD=pack.embeddings[row : row + 1].detach()) as maps,
            torch.no_grad(),
        ):
            backbone.denoise(noisy, 140, backbone.null_prompt())
        mean = resize_maps(maps, 8)[0].mean(0)
        rows, columns = torch.meshgrid(torch.arange(8) + 0.5, torch.arange(8) + 0.5, indexing="ij")
        squares = (columns - px / 16 * 8) ** 2 + (rows - py / 16 * 8) ** 2
        target = (-squares.double() / (2 * (0.1 * 8) ** 2)).exp()
        torch.testing.assert_close(found[row].detach(), (mean - target).square().mean())
    assert sorted(set(shown)) == [False, True]


def test_half_precision_and_crops_that_shrink(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Prompts are kept in fp32 and cast on the way: gradients reach them, and about those of fp32."""
    folder = save_tiny_pipeline(tmp_path_factory.mktemp("half"))
    config = dataclasses.replace(CONFIG, views="image", side=64)  # crops of 38 pixels for a model of 32
    gradients = []
    for dtype in ("float32", "bfloat16"):
        backbone = UNetBackbone.from_pretrained(folder, dtype=dtype)
        pack = PackFit(backbone, compose_prompts(QUERIES[:2], 2, "none", 1), IMAGES, config, MEAN)
        pack.backward(0)
        assert pack.embeddings.grad is not None
        gradients.append(pack.embeddings.grad.flatten())
    exact, half = gradients
    assert exact.norm() > 0
    assert torch.cosine_similarity(exact, half, dim=0) > 0.98


def test_a_grid_is_read_in_one_pass_a_crop(backbone: UNetBackbone) -> None:
    """Any batch size gives the same; and each query's map is that of reading its prompt alone."""
    image = image_of(5, 32, 32)
    prompts = random(5, NUM_TOKENS, WIDTH)
    config = TransferConfig(crops="grid", num_crops=4, crop=0.8, layers=LAYERS, trunk="null", batch_size=64)
    places = [[(n, 0)] for n in range(5)]
    passes = []
    handle = backbone.unet.register_forward_pre_hook(lambda module, args: passes.append(len(args[0])))
    together = transfer_grid(backbone, image, prompts, places, config, MEAN, target="t", heatmaps=True)
    handle.remove()
    assert passes == [4]
    for batch_size in (1, 3):
        small = dataclasses.replace(config, batch_size=batch_size)
        again = transfer_grid(backbone, image, prompts, places, small, MEAN, target="t", heatmaps=True)
        for a, b in zip(together, again, strict=True):
            assert a.heatmap is not None
            assert b.heatmap is not None
            torch.testing.assert_close(a.heatmap, b.heatmap)
    (alone,) = transfer_grid(
        backbone, image, prompts[3:4], [[(0, 0)]], config, MEAN, target="t", heatmaps=True
    )
    assert alone.heatmap is not None
    assert together[3].heatmap is not None
    torch.testing.assert_close(alone.heatmap, together[3].heatmap)


def test_each_crop_is_read_with_every_noise(backbone: UNetBackbone) -> None:
    """The mean of what the noises show, by hand; and where crops follow, more noises are refused."""
    image, prompt = image_of(5, 32, 32), random(1, NUM_TOKENS, WIDTH)
    config = TransferConfig(crops="grid", num_crops=1, num_noises=3, crop=1.0, layers=LAYERS, trunk="null")
    (found,) = transfer_grid(backbone, image, prompt, [[(0, 0)]], config, MEAN, target="t", heatmaps=True)
    draws, latent = SeededDraws("grid", 0, "t"), crop_latent(backbone, image, 0, 0, 32, False)
    maps = []
    for step in range(3):
        noise = draws.noise(step, tuple(latent.shape[1:]), "gaussian")
        read = read_prompts(backbone, latent, noise[None], 140, prompt, LAYERS, token=1, trunk="null")
        maps.append(resize_maps(read, 32)[0].mean(0))
    assert found.heatmap is not None
    assert not torch.allclose(maps[0], maps[1], rtol=1e-3)
    torch.testing.assert_close(found.heatmap, torch.stack(maps).mean(0))
    with pytest.raises(DiffcorrError, match="expected num_noises 1 where crops follow, found 3"):
        TransferConfig(num_noises=3)


@pytest.mark.parametrize("config", [FitConfig, TransferConfig])
def test_a_bank_has_at_least_the_corners(config: type[FitConfig] | type[TransferConfig]) -> None:
    with pytest.raises(DiffcorrError, match="expected bank_size 0 or at least 4"):
        config(bank_size=3)
    assert config(bank_size=4).bank_size == 4


def test_a_step_that_shows_no_query_of_a_prompt_leaves_it_as_it_is(backbone: UNetBackbone) -> None:
    config = dataclasses.replace(CONFIG, views="image", share="round", crop=0.5, steps=8)
    corner = [Query("toy", "a", f"k{i}", (1.0 + i, 2.0)) for i in range(2)]
    prompts = compose_prompts(corner, 1, "round", 2)
    pack = PackFit(backbone, prompts, IMAGES, config, MEAN)
    unseen = [step for step, crop in enumerate(pack._crops[0]) if max(crop.x, crop.y) > 1]
    assert unseen
    for step in range(config.steps):
        (loss,) = pack.losses(step)
        assert torch.isfinite(loss)
        assert (loss == 0) == (step in unseen)
    result = fit_prompts(backbone, prompts, IMAGES, config, MEAN)
    assert torch.isfinite(result.embeddings).all()


def test_crops_of_an_image_show_its_corners_however_small(backbone: UNetBackbone) -> None:
    config = dataclasses.replace(CONFIG, views="image", crop=0.4, steps=6, bank_size=25)
    pack = PackFit(backbone, compose_prompts(QUERIES[:1], 1, "none", 1), IMAGES, config, MEAN)
    room = 32 - 12
    corners = [(0, 0), (0, room), (room, 0), (room, room)]
    assert [(crop.x, crop.y) for crop in pack._crops[0][:4]] == corners
