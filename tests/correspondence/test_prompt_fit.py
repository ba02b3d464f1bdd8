import dataclasses

import numpy as np
import pytest
import torch

from diffcorr.attention import MeanAttention
from diffcorr.backbones import UNetBackbone
from diffcorr.correspondence import (
    FitConfig,
    FitItem,
    RecordedDraws,
    SeededDraws,
    TransferConfig,
    fit_prompts,
    transfer,
)
from diffcorr.correspondence.crops import crop_bounds
from diffcorr.correspondence.pack import PackFit, gaussian_target
from diffcorr.correspondence.prompts import compose_packs, own_prompt
from diffcorr.errors import DiffcorrError, ImageError, UnknownNameError
from diffcorr.types import Query
from tests.helpers import fit_reference
from tests.helpers.fit_reference import image_of
from tests.helpers.tiny_models import NUM_TOKENS, WIDTH, save_tiny_pipeline, tiny_backbone

IMAGES = {"a": image_of(0, 48, 40), "b": image_of(1, 40, 48)}
CONFIG = FitConfig(steps=6, lr=0.05, sigma=0.1, crop=0.8, rounds=2, layers=[3, 4, 5], loss_resolution=None)
MEAN = MeanAttention()


def items(rounds: int = 2) -> list[FitItem]:
    points = [(5.0, 6.0), (30.5, 33.0), (20.0, 20.0), (38.0, 2.0)]
    queries = [Query("toy", image, f"k{i}", point) for image in "ba" for i, point in enumerate(points)]
    return [FitItem(query, round) for query in queries for round in range(rounds)]


@pytest.mark.parametrize("loss", ["mean_map", "per_layer"])
def test_against_a_plain_loop(loss: str) -> None:
    """One item, its passes whole, its target pixel by pixel and Adam written out."""
    backbone = tiny_backbone(torch.float64)
    image, point = image_of(2, 32, 32), (21.0, 9.5)
    generator = torch.Generator().manual_seed(0)
    crops = torch.tensor([[0, 3], [6, 0], [2, 2], [4, 1]])
    initial = torch.randn(NUM_TOKENS, WIDTH, generator=generator)
    noises = torch.randn(4, 4, 8, 8, generator=generator)
    flips = [False, True, False, True]
    config = dataclasses.replace(CONFIG, steps=4, loss=loss, loss_resolution=16)
    result = fit_prompts(
        backbone,
        [FitItem(Query("toy", "x", "k", point), 0)],
        {"x": image},
        config,
        MEAN,
        [RecordedDraws(crops, noises, initial, flips)],
    )
    expected, losses = fit_reference.fit_one(
        backbone,
        image,
        point,
        4,
        0.05,
        0.1,
        25,
        (initial, crops, noises),
        [3, 4, 5],
        140,
        16,
        loss == "per_layer",
        flips,
    )
    torch.testing.assert_close(result.losses[:, 0], torch.tensor(losses))
    torch.testing.assert_close(result.embeddings[0], expected, rtol=0, atol=1e-6)


def test_target_is_a_gaussian_of_peak_one() -> None:
    target = gaussian_target(torch.tensor([[0.25, 0.75]]), 8, 0.125)[0]
    rows, columns = np.mgrid[:8, :8]
    expected = np.exp(-((columns + 0.5 - 2) ** 2 + (rows + 0.5 - 6) ** 2) / 2)
    np.testing.assert_allclose(target, expected, rtol=1e-5)
    corner = gaussian_target(torch.tensor([[0.25, 0.75]]), 8, 0.125, pixel_centre=0)[0]
    assert corner[6, 2] == 1


def test_the_loss_falls() -> None:
    config = dataclasses.replace(CONFIG, steps=60, lr=0.1)
    losses = fit_prompts(tiny_backbone(), items(1), IMAGES, config, MEAN).losses
    assert (losses[-10:].mean(0) < losses[:10].mean(0)).all()


def points_of(backbone: UNetBackbone, pack_size: int) -> torch.Tensor:
    config = dataclasses.replace(CONFIG, pack_size=pack_size)
    embeddings = fit_prompts(backbone, items(), IMAGES, config, MEAN).embeddings
    reading = TransferConfig(num_crops=5, crop=0.8, layers=[3, 4, 5], batch_size=pack_size)
    stacked = embeddings.unflatten(0, (-1, 2))
    keys = [item.query.id for item in items()[::2]]
    found = transfer(backbone, image_of(3, 50, 44), stacked, reading, MEAN, keys=keys, target="t")
    return torch.tensor([result.point for result in found])


def test_packs_do_not_matter() -> None:
    double = tiny_backbone(torch.float64)
    assert torch.equal(points_of(double, 1), points_of(double, 16))
    single = tiny_backbone()
    apart = (points_of(single, 1) - points_of(single, 16)).norm(dim=1)
    assert (apart <= 1).float().mean() >= 0.99


def test_neither_does_the_order_of_items() -> None:
    backbone = tiny_backbone(torch.float64)
    config = dataclasses.replace(CONFIG, steps=3, pack_size=3)
    forward = fit_prompts(backbone, items(), IMAGES, config, MEAN)
    backward = fit_prompts(backbone, items()[::-1], IMAGES, config, MEAN)
    assert torch.equal(forward.embeddings, backward.embeddings.flip(0))
    assert torch.equal(forward.losses, backward.losses.flip(1))
    alone = fit_prompts(backbone, items()[4:5], IMAGES, config, MEAN)
    torch.testing.assert_close(alone.embeddings[0], forward.embeddings[4], rtol=0, atol=1e-9)


def test_full_bank_changes_nothing() -> None:
    backbone = tiny_backbone(torch.float64)
    results = [
        fit_prompts(backbone, items(), IMAGES, dataclasses.replace(CONFIG, bank_size=n, flip_prob=0.5), MEAN)
        for n in (0, 4096)
    ]
    torch.testing.assert_close(results[0].embeddings, results[1].embeddings, rtol=0, atol=1e-9)
    torch.testing.assert_close(results[0].losses, results[1].losses, rtol=1e-6, atol=0)


def test_small_bank_still_fits() -> None:
    config = dataclasses.replace(CONFIG, bank_size=4)
    assert torch.isfinite(fit_prompts(tiny_backbone(), items(1), IMAGES, config, MEAN).losses).all()


def test_only_embeddings_receive_gradients() -> None:
    backbone = tiny_backbone()
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    pack = PackFit(backbone, items(), IMAGES, CONFIG, MEAN)
    start = pack.embeddings.detach().clone()
    optimizer = pack.optimizer()
    pack.losses(0).sum().backward()
    optimizer.step()
    assert all(p.grad is None for p in backbone.parameters())
    assert (pack.embeddings.grad.abs().amax((1, 2)) > 0).all()
    assert (pack.embeddings - start).abs().amax((1, 2)).gt(0).all()
    fit_prompts(backbone, items(), IMAGES, CONFIG, MEAN)
    assert all(torch.equal(before[name], value) for name, value in backbone.state_dict().items())


def test_items_never_influence_one_another() -> None:
    """The gradient of one item's loss to all other items' embeddings is exactly zero."""
    pack = PackFit(tiny_backbone(torch.float64), items()[:4], IMAGES, CONFIG, MEAN)
    (gradient,) = torch.autograd.grad(pack.losses(0)[2], pack.embeddings)
    assert gradient[2].abs().max() > 0
    assert gradient[[0, 1, 3]].abs().max() == 0


def test_text_initialisation(tmp_path_factory: pytest.TempPathFactory) -> None:
    backbone = UNetBackbone.from_pretrained(save_tiny_pipeline(tmp_path_factory.mktemp("model")))
    config = dataclasses.replace(CONFIG, steps=0, init="text", init_text="red", init_scale=0.0)
    result = fit_prompts(backbone, items(1)[:2], IMAGES, config, MEAN)
    expected = backbone.encode_prompt(["red"])[0]
    torch.testing.assert_close(result.embeddings, expected.expand(2, -1, -1))


def test_letterbox_and_a_larger_working_square() -> None:
    config = dataclasses.replace(CONFIG, steps=2, frame="letterbox", side=48)
    result = fit_prompts(tiny_backbone(), items(1), IMAGES, config, MEAN)
    assert torch.isfinite(result.losses).all()


def test_draws_depend_on_the_item_alone() -> None:
    one, two = SeededDraws("fit", 0, "toy/a/k0", 1), SeededDraws("fit", 0, "toy/a/k0", 1)
    two.noise(0, (4,), "uniform")  # one purpose never shifts another
    assert torch.equal(one.init((3, 4)), two.init((3, 4)))
    assert [one.crop(i, (0, 0), (9, 9)) for i in range(5)] == [two.crop(i, (0, 0), (9, 9)) for i in range(5)]
    other = SeededDraws("fit", 0, "toy/a/k0", 2)
    assert not torch.equal(other.init((3, 4)), SeededDraws("fit", 0, "toy/a/k0", 1).init((3, 4)))
    # written down once, so that results stay repeatable from version to version
    assert SeededDraws("fit", 0, "toy/a/k0", 1).crop(0, (0, 0), (99, 99)) == (38, 85)


def test_crop_draws_are_uniform() -> None:
    draws = SeededDraws("test")
    low, high = crop_bounds((16.0, 16.0), 32, 28, 0.15)
    xs = torch.tensor([draws.crop(i, low, high)[0] for i in range(4000)])
    counts = torch.bincount(xs, minlength=5).float()
    assert (low[0], high[0]) == (0, 4)
    assert ((counts - 800) ** 2 / 800).sum() < 18.5  # chi-square, 4 degrees of freedom, p = 0.001


def test_packs_are_composed_from_sorted_ids() -> None:
    packs = compose_packs([own_prompt(i) for i in items()], 5)
    assert packs == compose_packs([own_prompt(i) for i in items()[::-1]], 5)
    assert [len(pack) for pack in packs] == [5, 5, 5, 1]
    assert {item for pack in packs for prompt in pack for item in prompt.items} == set(items())


def test_nothing_to_fit() -> None:
    result = fit_prompts(tiny_backbone(), [], {}, CONFIG, MEAN)
    assert result.embeddings.shape == (0, NUM_TOKENS, WIDTH)
    assert result.losses.shape == (CONFIG.steps, 0)


def test_errors_in_one_line() -> None:
    backbone = tiny_backbone()
    outside = [FitItem(Query("toy", "a", "k", (48.5, 3.0)), 0)]
    with pytest.raises(ImageError, match=r"query toy/a/k inside its image of 48x40, found \(48.5, 3\)"):
        fit_prompts(backbone, outside, IMAGES, CONFIG, MEAN)
    with pytest.raises(UnknownNameError, match="unknown cross-attention layer of toy 12; known: 0="):
        fit_prompts(backbone, [], {}, dataclasses.replace(CONFIG, layers=[12]), MEAN)
    with pytest.raises(DiffcorrError, match=r"expected a token in 0\.\.7 of toy, found 8"):
        fit_prompts(backbone, [], {}, dataclasses.replace(CONFIG, token=8), MEAN)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": -1}, "steps at least 0"),
        ({"crop": 1.5}, r"crop in 0.01..1"),
        ({"loss": "l1"}, "loss of mean_map, per_layer"),
        ({"noise": "pink"}, "noise of gaussian, uniform"),
        ({"init": "zeros"}, "init of gaussian, text"),
        ({"sigma": 0.0}, "sigma at least"),
    ],
)
def test_config_refuses(change: dict[str, object], message: str) -> None:
    with pytest.raises(DiffcorrError, match=message):
        dataclasses.replace(CONFIG, **change)


def test_identity_leaves_out_what_does_not_matter() -> None:
    assert dataclasses.replace(CONFIG, pack_size=3, rounds=9).identity() == CONFIG.identity()
    assert dataclasses.replace(CONFIG, seed=3).identity() != CONFIG.identity()
