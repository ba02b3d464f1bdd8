"""Queries that share a prompt, grid crops, early stop, and what happens when memory runs out."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from diffcorr.attention import MeanAttention, capture
from diffcorr.backbones import UNetBackbone
from diffcorr.correspondence import (
    FitConfig,
    PromptFit,
    TransferConfig,
    compose_prompts,
    fit_prompts,
    transfer_grid,
)
from diffcorr.correspondence.draws import SeededDraws
from diffcorr.correspondence.pack import PackFit, fit_batches, try_pack
from diffcorr.correspondence.prompts import to_front
from diffcorr.correspondence.transfer import batches_of
from diffcorr.errors import DiffcorrError, DivergedError
from diffcorr.memory import Batches, fitting_size
from diffcorr.types import Query
from tests.helpers.fit_reference import crop_latent, image_of, token_maps, upscale
from tests.helpers.tiny_models import NUM_TOKENS, WIDTH, save_tiny_pipeline, tiny_backbone

MEAN = MeanAttention()
IMAGES = {"a": image_of(0, 48, 40), "b": image_of(1, 40, 48)}
CONFIG = FitConfig(
    steps=6, lr=0.05, sigma=0.1, crop=0.8, rounds=2, layers=[3, 4, 5], loss_resolution=None, pack_size=4
)
POINTS = [(5.0, 6.0), (30.5, 33.0), (20.0, 20.0), (38.0, 2.0)]
QUERIES = [Query("toy", image, f"k{i}", point) for image in "ba" for i, point in enumerate(POINTS)]


def test_who_shares_a_prompt() -> None:
    alone = compose_prompts(QUERIES, 2, "none", 1)
    assert [p.key for p in alone[:3]] == [("toy/a/k0", 0), ("toy/a/k0", 1), ("toy/a/k1", 0)]
    by_round = compose_prompts(QUERIES, 2, "round", 3)
    assert by_round == compose_prompts(QUERIES[::-1], 2, "round", 3)
    assert [[(i.query.id, i.round) for i in p.items] for p in by_round[:2]] == [
        [("toy/a/k0", 0), ("toy/a/k2", 0)],
        [("toy/a/k0", 1), ("toy/a/k2", 1)],
    ]
    (of_a, of_b) = compose_prompts(QUERIES, 2, "image", 4)
    assert of_a.image_id == "a"
    assert [(i.query.keypoint, i.round) for i in of_b.items] == [
        (f"k{k}", r) for r in range(2) for k in range(4)
    ]
    name, members = of_b.key[0].split("#")
    assert (name, json.loads(members)) == ("toy/b", ["k0", "k1", "k2", "k3"])


def test_an_exchange_of_tokens_is_an_exchange_of_columns() -> None:
    backbone = tiny_backbone(torch.float64)
    embedding = torch.randn(NUM_TOKENS, WIDTH, dtype=torch.float64)
    latents = torch.randn(1, 4, 8, 8, dtype=torch.float64)
    columns = []
    for prompt in (embedding, to_front(embedding, 3, CONFIG)):
        with torch.no_grad(), capture(backbone, [3, 4, 5]) as maps:
            backbone.denoise(latents, 140, prompt[None])
        columns.append([m.tensor for m in maps.values()])
    for before, after in zip(*columns, strict=True):
        torch.testing.assert_close(after[..., CONFIG.token], before[..., CONFIG.token + 3])


def test_the_loss_of_a_shared_prompt() -> None:
    """Against a slow mean over the queries that the step's crop shows, pixel by pixel."""
    backbone = tiny_backbone(torch.float64)
    config = dataclasses.replace(CONFIG, share="round", crop=0.5)
    image, crop = image_of(2, 32, 32), 16
    points = [(5.0, 6.0), (30.5, 31.0), (20.0, 20.0), (28.0, 2.0)]
    queries = [Query("toy", "c", f"k{i}", point) for i, point in enumerate(points)]
    (prompt,) = compose_prompts(queries, 1, "round", 4)
    pack = PackFit(backbone, [prompt], {"c": image}, config, MEAN)
    draws = SeededDraws("fit", config.seed, *prompt.key)
    noise = draws.noise(0, (4, 8, 8), "gaussian").double()
    x, y, _ = pack._crops[0][0]
    latent = crop_latent(backbone, image, x, y, crop, False)
    alpha = backbone.alphas_cumprod[140]
    noisy = alpha.sqrt() * latent + (1 - alpha).sqrt() * noise
    with torch.no_grad(), capture(backbone, [3, 4, 5]) as maps:
        backbone.denoise(noisy, 140, pack.embeddings.detach())
    errors = []
    for item, (query, _) in enumerate(prompt.items):
        px, py = query.point[0] - x, query.point[1] - y
        if not (0 <= px <= crop and 0 <= py <= crop):
            continue
        mean = torch.stack(
            [F.interpolate(m.grid[..., 1 + item][None], (8, 8), mode="bilinear")[0, 0] for m in maps.values()]
        ).mean(0)
        rows, columns = np.mgrid[:8, :8]
        squares = (columns + 0.5 - px / crop * 8) ** 2 + (rows + 0.5 - py / crop * 8) ** 2
        target = torch.tensor(np.exp(-squares / (2 * (0.1 * 8) ** 2)))
        errors.append((mean - target).square().mean())
    assert 0 < len(errors) < 4  # the crop leaves some out
    torch.testing.assert_close(pack.losses(0)[0], torch.stack(errors).mean())


@pytest.mark.parametrize("share", ["round", "image"])
def test_shared_prompts_do_not_influence_one_another(share: str) -> None:
    backbone = tiny_backbone(torch.float64)
    config = dataclasses.replace(CONFIG, share=share)
    prompts = compose_prompts(QUERIES, 2, share, 3)
    together = fit_prompts(backbone, prompts, IMAGES, config, MEAN)
    apart = fit_prompts(backbone, prompts, IMAGES, dataclasses.replace(config, pack_size=1), MEAN)
    torch.testing.assert_close(together.embeddings, apart.embeddings, rtol=0, atol=1e-9)
    torch.testing.assert_close(together.losses, apart.losses)


def test_one_query_alone_is_the_method_of_the_papers() -> None:
    """A shared prompt of one query in one round, given the same draws, fits what that query alone fits."""
    backbone = tiny_backbone(torch.float64)
    (shared,) = compose_prompts(QUERIES[:1], 1, "image", 1)
    (alone,) = compose_prompts(QUERIES[:1], 1, "none", 1)
    results = [
        fit_prompts(backbone, [p], IMAGES, CONFIG, MEAN, [SeededDraws("same")]).embeddings
        for p in (shared, alone)
    ]
    assert torch.equal(*results)


def test_grid_reading_against_a_plain_loop() -> None:
    backbone = tiny_backbone(torch.float64)
    image = image_of(5, 32, 32)
    prompts = torch.randn(2, NUM_TOKENS, WIDTH, dtype=torch.float64)
    read = TransferConfig(crops="grid", num_crops=4, crop=0.8, layers=[3, 4, 5], batch_size=3)
    places = [[(0, 0), (1, 0)], [(0, 2), (1, 1)]]
    found = transfer_grid(backbone, image, prompts, places, read, MEAN, target="t", heatmaps=True)
    noises = SeededDraws("grid", 0, "t")
    totals, count = torch.zeros(2, 3, 32, 32, dtype=torch.float64), torch.zeros(32, 32)
    alpha = backbone.alphas_cumprod[140]
    for step, (x, y) in enumerate([(0, 0), (7, 0), (0, 7), (7, 7)]):
        latent = crop_latent(backbone, image, x, y, 25, False)
        noise = noises.noise(step, (4, 8, 8), "gaussian").double()
        noisy = alpha.sqrt() * latent + (1 - alpha).sqrt() * noise
        count[y : y + 25, x : x + 25] += 1
        for query, members in enumerate(places):
            for prompt, item in members:
                front = to_front(prompts[prompt], item, CONFIG)[None]
                with torch.no_grad():
                    maps = token_maps(backbone, [3, 4, 5], noisy, 140, front)
                for layer, one in enumerate(maps):
                    totals[query, layer, y : y + 25, x : x + 25] += upscale(one, 25) / 2
    for result, expected in zip(found, totals / count, strict=True):
        torch.testing.assert_close(torch.stack(list(result.layer_maps.values())), expected)
        best = int(expected.mean(0).argmax())
        assert result.point == (best % 32 + 0.5, best // 32 + 0.5)


def test_on_a_grid_each_round_tells_what_it_finds_alone() -> None:
    backbone = tiny_backbone(torch.float64)
    image = image_of(5, 48, 32)
    prompts = torch.randn(
        3, NUM_TOKENS, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(3)
    )
    read = TransferConfig(crops="grid", num_crops=4, crop=0.8, layers=[3, 4, 5], batch_size=3)
    places = [[(0, 0), (1, 0), (2, 1)], [(0, 2), (0, 1)], [(1, 1)]]
    together = transfer_grid(backbone, image, prompts, places, read, MEAN, target="t")
    for found, wanted in zip(together, places, strict=True):
        assert len(found.round_points) == len(wanted)
        for point, place in zip(found.round_points.values(), wanted, strict=True):
            (alone,) = transfer_grid(backbone, image, prompts, [[place]], read, MEAN, target="t")
            assert point == alone.point
    assert together[2].round_points == {0: together[2].point}
    assert len(set(together[0].round_points.values())) > 1


@pytest.mark.parametrize("share", ["none", "round", "image"])
@pytest.mark.parametrize("crops", ["grid", "follow"])
def test_every_way_of_sharing_finds_points(share: str, crops: str) -> None:
    backbone = tiny_backbone()
    read = TransferConfig(crops=crops, num_crops=4, crop=0.8, layers=[3, 4, 5])
    config = dataclasses.replace(CONFIG, share=share, spare_tokens=1)
    method = PromptFit(backbone, MEAN, config, read)
    method.fit(QUERIES, IMAGES)
    assert method.missing(QUERIES) == []
    found = method.locate(QUERIES[2:5], IMAGES["a"], "toy/a")
    assert len(found) == 3
    again = PromptFit(backbone, MEAN, config, read, method.embeddings)
    assert again.missing(QUERIES) == []
    assert [r.point for r in again.locate(QUERIES[2:5], IMAGES["a"], "toy/a")] == [r.point for r in found]


def test_a_converged_prompt_stays_as_it_is() -> None:
    backbone = tiny_backbone(torch.float64)
    prompts = compose_prompts(QUERIES[:2], 1, "none", 1)
    whole = dataclasses.replace(CONFIG, steps=40, lr=0.1)
    early = dataclasses.replace(whole, stop_patience=4, stop_tolerance=0.02)
    stopped = fit_prompts(backbone, prompts, IMAGES, early, MEAN)
    lengths = stopped.losses.isfinite().sum(0)
    assert (lengths < 40).all()
    assert (lengths >= 8).all()
    assert lengths[0] != lengths[1]  # one goes on while the other is finished
    for row, length in enumerate(lengths.tolist()):
        short = dataclasses.replace(whole, steps=length)
        expected = fit_prompts(backbone, prompts[row : row + 1], IMAGES, short, MEAN)
        torch.testing.assert_close(stopped.embeddings[row], expected.embeddings[0], rtol=0, atol=1e-9)
        recent = stopped.losses[length - 8 : length, row]
        assert recent[4:].mean() >= 0.98 * recent[:4].mean()


def test_out_of_memory_costs_no_work() -> None:
    """A device that holds three prompts: the fit goes on in parts, with the same result."""
    backbone = tiny_backbone(torch.float64)
    prompts = compose_prompts(QUERIES, 1, "none", 1)
    config = dataclasses.replace(CONFIG, pack_size=8)
    expected = fit_prompts(backbone, prompts, IMAGES, config, MEAN)
    sizes: list[int] = []

    def small_device(module: object, args: tuple[torch.Tensor, ...]) -> None:
        sizes.append(len(args[0]))
        if len(args[0]) > 3:
            raise torch.OutOfMemoryError

    handle = backbone.unet.register_forward_pre_hook(small_device)
    found = fit_prompts(backbone, prompts, IMAGES, config, MEAN)
    handle.remove()
    assert sizes[:5] == [8, 4, 2, 2, 2]
    assert max(sizes[2:]) == 2
    torch.testing.assert_close(found.embeddings, expected.embeddings, rtol=0, atol=1e-9)
    torch.testing.assert_close(found.losses, expected.losses)


def test_out_of_memory_while_results_are_added_costs_no_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Allocation fails once, in turn at every place: nothing of a pass may be there when it is repeated."""
    backbone = UNetBackbone.from_pretrained(save_tiny_pipeline(tmp_path), dtype="float64")
    prompts = torch.randn(4, NUM_TOKENS, WIDTH, dtype=torch.float64)
    read = TransferConfig(crops="grid", num_crops=4, crop=0.8, layers=[3, 4, 5], batch_size=4)
    fit = dataclasses.replace(CONFIG, init="features", init_crops=3, steps=0)
    wanted = compose_prompts(QUERIES[:4], 1, "none", 1)
    allocate, interpolate = torch.Tensor.new_zeros, F.interpolate
    left = [10**9]

    def full(call: object) -> object:
        def once(*args: object, **kwargs: object) -> object:
            left[0] -= not kwargs.get("antialias")  # of a whole picture, before any work
            if left[0] == 0:
                raise torch.OutOfMemoryError
            return call(*args, **kwargs)

        return once

    monkeypatch.setattr(torch.Tensor, "new_zeros", full(allocate))
    monkeypatch.setattr(F, "interpolate", full(interpolate))

    def results() -> tuple[torch.Tensor, torch.Tensor]:
        found = transfer_grid(
            backbone, image_of(5, 32, 32), prompts, [[(n, 0)] for n in range(4)], read, MEAN, heatmaps=True
        )
        fitted = fit_prompts(backbone, wanted, IMAGES, fit, MEAN).embeddings
        return torch.stack([result.heatmap for result in found]), fitted

    expected = results()
    calls = 10**9 - left[0]
    assert calls > 20
    for call in range(1, calls + 1, 2):
        left[0] = call
        torch.testing.assert_close(results(), expected, rtol=0, atol=1e-9)


def test_a_fit_that_diverges_is_one_line() -> None:
    method = PromptFit(tiny_backbone(), MEAN, dataclasses.replace(CONFIG, steps=2, lr=3e37))
    with pytest.raises(DivergedError, match="found nan or inf for 'toy/a/k0' round 0: the fit diverged"):
        method.fit(QUERIES[4:6], IMAGES)


def test_what_memory_has_taught_is_kept() -> None:
    backbone = tiny_backbone()
    config = TransferConfig()
    batches_of(config, backbone).size = 3
    assert batches_of(dataclasses.replace(config), backbone).size == 3
    assert batches_of(dataclasses.replace(config, num_crops=9), backbone).size > 3
    assert batches_of(config, tiny_backbone()).size > 3
    fit_batches(backbone, CONFIG, MEAN).size = 2  # as configured: nothing to learn
    assert fit_batches(backbone, CONFIG, MEAN).size == CONFIG.pack_size


def test_a_pack_can_be_tried_where_a_trainer_predicts() -> None:
    """``pack_size: auto`` measures gradients; prediction runs without them."""
    with torch.no_grad():
        try_pack(tiny_backbone(), CONFIG, MEAN, 2)


def test_one_item_too_many() -> None:
    def work(part: slice) -> None:
        raise torch.OutOfMemoryError

    with pytest.raises(DiffcorrError, match="room for a single item"):
        Batches(4).map(3, work)
    assert fitting_size(torch.device("cpu"), lambda count: None, most=8) == 8


def test_whole_passes_change_nothing() -> None:
    backbone = tiny_backbone(torch.float64)
    prompts = compose_prompts(QUERIES, 1, "none", 1)
    early, whole = (
        fit_prompts(
            backbone, prompts, IMAGES, dataclasses.replace(CONFIG, layers=[2, 3], stop_early=stop), MEAN
        )
        for stop in (True, False)
    )
    torch.testing.assert_close(early.embeddings, whole.embeddings, rtol=0, atol=1e-9)


def test_half_precision_gradients_do_not_vanish() -> None:
    """fp16 weights, a loss over 512 x 512 pixels: the direction of fp32 gradients is kept."""
    config = dataclasses.replace(CONFIG, loss_resolution=512, steps=1)
    prompts = compose_prompts(QUERIES[:2], 1, "none", 1)
    gradients = []
    for dtype in (torch.float32, torch.float16):
        pack = PackFit(tiny_backbone(dtype), prompts, IMAGES, config, MEAN)
        pack.backward(0)
        gradients.append(pack.embeddings.grad.flatten(1))
    assert gradients[1].isfinite().all()
    assert (F.cosine_similarity(*gradients) > 0.99).all()
    torch.testing.assert_close(gradients[1].norm(dim=1), gradients[0].norm(dim=1), rtol=0.05, atol=0)


@pytest.mark.parametrize(
    ("config", "change", "message"),
    [
        (CONFIG, {"share": "all"}, "share of none, round, image"),
        (CONFIG, {"pack_size": 0}, "pack_size 'auto' or at least 1, found 0"),
        (TransferConfig(), {"batch_size": "many"}, "batch_size 'auto' or at least 1, found 'many'"),
        (TransferConfig(), {"crops": "grid", "num_crops": 5}, "square number of grid crops, found 5"),
    ],
)
def test_config_refuses(config: object, change: dict[str, object], message: str) -> None:
    with pytest.raises(DiffcorrError, match=message):
        dataclasses.replace(config, **change)


def test_a_prompt_without_room() -> None:
    config = dataclasses.replace(CONFIG, share="image", rounds=8)
    with pytest.raises(DiffcorrError, match="room for a query in a prompt of 8 tokens"):
        PromptFit(tiny_backbone(), MEAN, config)
