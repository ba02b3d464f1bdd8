import dataclasses

import pytest
import torch

from diffcorr.attention import MeanAttention
from diffcorr.correspondence import RecordedDraws, TransferConfig, transfer, transfer_grid
from diffcorr.correspondence.crops import crop_bounds
from diffcorr.correspondence.draws import SeededDraws
from diffcorr.correspondence.transfer import _argmax
from diffcorr.data.geometry import Resize
from diffcorr.errors import DiffcorrError
from tests.helpers.fit_reference import crop_latent, image_of, token_maps, upscale
from tests.helpers.tiny_models import NUM_TOKENS, WIDTH, tiny_backbone

CONFIG = TransferConfig(num_crops=6, crop=0.8, layers=[3, 4, 5])
MEAN = MeanAttention()


def embeddings(num_queries: int, num_rounds: int) -> torch.Tensor:
    return torch.randn(num_queries, num_rounds, NUM_TOKENS, WIDTH, generator=torch.Generator().manual_seed(1))


def test_against_a_plain_loop() -> None:
    backbone = tiny_backbone(torch.float64)
    image = image_of(5, 32, 32)
    embeds = embeddings(1, 2)
    corners = [(0, 0), (0, 7), (7, 0), (7, 7)]
    later = torch.tensor([[[3, 2], [7, 1]], [[0, 5], [4, 4]]])
    noises = torch.randn(2, 6, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    draws = [[RecordedDraws(torch.cat([torch.zeros(4, 2).long(), later[r]]), noises[r]) for r in range(2)]]
    config = dataclasses.replace(CONFIG, readout="softmax_mean")
    (found,) = transfer(backbone, image, embeds, config, MEAN, draws=draws, heatmaps=True)

    maps = torch.zeros(3, 32, 32, dtype=torch.float64)
    for r in range(2):
        total, count = torch.zeros(3, 32, 32, dtype=torch.float64), torch.zeros(32, 32)
        for step, (x, y) in enumerate([*corners, *map(tuple, later[r].tolist())]):
            with torch.no_grad():
                latent = crop_latent(backbone, image, x, y, 25, False)
                alpha = backbone.alphas_cumprod[140]
                noisy = alpha.sqrt() * latent + (1 - alpha).sqrt() * noises[r, step][None].to(latent)
                read = token_maps(backbone, [3, 4, 5], noisy, 140, embeds[:, r].double())
            for layer, one in enumerate(read):
                total[layer, y : y + 25, x : x + 25] += upscale(one, 25)
            count[y : y + 25, x : x + 25] += 1
        maps += total / count / 2
    torch.testing.assert_close(torch.stack(list(found.layer_maps.values())), maps)
    torch.testing.assert_close(found.heatmap, maps.mean(0))
    best = int(maps.flatten(1).softmax(1).mean(0).argmax())
    assert found.point == (best % 32 + 0.5, best // 32 + 0.5)
    assert found.confidence == pytest.approx(float(maps.mean(0).flatten()[best]))
    for point, one in zip(found.layer_points.values(), maps, strict=True):
        assert point == (int(one.argmax()) % 32 + 0.5, int(one.argmax()) // 32 + 0.5)


@pytest.mark.parametrize("readout", ["mean", "softmax_mean"])
def test_each_round_tells_what_it_finds_alone(readout: str) -> None:
    backbone = tiny_backbone(torch.float64)
    config = dataclasses.replace(CONFIG, readout=readout)
    image, embeds = image_of(6, 60, 45), embeddings(3, 4)

    def draws(query: int, round: int) -> SeededDraws:
        return SeededDraws("drawn", query, round)

    all_draws = [[draws(query, round) for round in range(4)] for query in range(3)]
    together = transfer(backbone, image, embeds, config, MEAN, draws=all_draws)
    for query, found in enumerate(together):
        assert list(found.round_points) == [0, 1, 2, 3]
        for round, point in found.round_points.items():
            one = embeds[query : query + 1, round : round + 1]
            (alone,) = transfer(backbone, image, one, config, MEAN, draws=[[draws(query, round)]])
            assert point == alone.point == alone.round_points[0]
    assert any(len(set(found.round_points.values())) > 1 for found in together)


def test_later_crops_follow_the_maximum() -> None:
    """Every crop beyond the corners is drawn within the bounds around the maximum so far."""
    backbone = tiny_backbone(torch.float64)
    asked: list[tuple[tuple[int, int], tuple[int, int]]] = []

    class Watched(RecordedDraws):
        def crop(self, step, low, high):
            asked.append((low, high))
            return low

    noises = torch.randn(6, 4, 8, 8, generator=torch.Generator().manual_seed(4))
    config = dataclasses.replace(CONFIG, crop=0.5, num_crops=5)
    watched = [[Watched(torch.zeros(6, 2), noises)]]
    transfer(backbone, image_of(5, 32, 32), embeddings(1, 1), config, MEAN, draws=watched)
    four = dataclasses.replace(config, num_crops=4)
    (before,) = transfer(
        backbone, image_of(5, 32, 32), embeddings(1, 1), four, MEAN, draws=watched, heatmaps=True
    )
    assert asked == [crop_bounds(before.point, 32, 16, 0.15)]


def test_queries_and_batches_do_not_matter() -> None:
    backbone = tiny_backbone(torch.float64)
    image = image_of(6, 60, 45)
    embeds, keys = embeddings(5, 2), [f"q{i}" for i in range(5)]
    together = transfer(backbone, image, embeds, CONFIG, MEAN, keys=keys)
    for batch_size in (1, 3):
        config = dataclasses.replace(CONFIG, batch_size=batch_size)
        assert [r.point for r in transfer(backbone, image, embeds, config, MEAN, keys=keys)] == [
            r.point for r in together
        ]
    alone = transfer(backbone, image, embeds[3:4], CONFIG, MEAN, keys=keys[3:4])
    assert alone[0].point == together[3].point
    assert len({r.point for r in together}) > 1


def test_maps_that_are_not_held_at_once_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = tiny_backbone(torch.float64)
    image = image_of(6, 60, 45)
    embeds, keys = embeddings(5, 2), [f"q{i}" for i in range(5)]
    places = [[(2 * q, 0), (2 * q + 1, 0)] for q in range(5)]
    grid = dataclasses.replace(CONFIG, crops="grid", num_crops=4)
    found = []
    for room in (1 << 30, 2 * 2 * len(CONFIG.layers) * 32 * 32 * 8, 1):  # all, two queries, one
        monkeypatch.setattr("diffcorr.memory.CPU_ROOM", room)
        results = transfer(backbone, image, embeds, CONFIG, MEAN, keys=keys)
        results += transfer_grid(backbone, image, embeds.flatten(0, 1), places, grid, MEAN)
        found.append([r.point for r in results])
    assert found[0] == found[1] == found[2]
    assert len(set(found[0])) > 2


def test_points_are_pixels_of_the_original() -> None:
    backbone = tiny_backbone()
    config = dataclasses.replace(CONFIG, num_crops=1, crop=1.0)
    (found,) = transfer(backbone, image_of(7, 96, 64), embeddings(1, 1), config, MEAN, heatmaps=True)
    assert found.heatmap is not None
    best = int(found.heatmap.argmax())
    assert found.point == pytest.approx(((best % 32 + 0.5) * 3, (best // 32 + 0.5) * 2))


def test_flat_borders_are_told_apart_by_no_rounding() -> None:
    """An enlarged map is flat along its border: noise of the last bits must not choose the pixel."""
    geometry = Resize((32, 32), (32, 32))
    small = torch.zeros(8, 8)
    small[7, 3] = 1.0
    large = upscale(small, 32)
    noisy = torch.stack([large * (1 + 2e-7 * torch.randn(32, 32)) for _ in range(20)])
    assert set(_argmax(noisy, geometry)) == {(13.5, 30.5)}
    assert _argmax(-1 - torch.stack([large]), geometry) == [(0.5, 0.5)]


def test_letterbox_never_answers_beside_the_image() -> None:
    backbone = tiny_backbone()
    config = dataclasses.replace(CONFIG, frame="letterbox")
    for seed in range(4):
        for result in transfer(backbone, image_of(seed, 90, 30), embeddings(6, 1), config, MEAN):
            points = [result.point, *result.layer_points.values()]
            assert all(0 <= x <= 90 and 0 <= y <= 30 for x, y in points)
            assert 0 <= result.confidence <= 1


def test_no_queries() -> None:
    assert transfer(tiny_backbone(), image_of(0, 32, 32), embeddings(0, 2), CONFIG, MEAN) == []


def test_config_refuses() -> None:
    with pytest.raises(DiffcorrError, match="readout of mean, softmax_mean"):
        TransferConfig(readout="max")  # type: ignore[arg-type]
    with pytest.raises(DiffcorrError, match="num_crops at least 1"):
        TransferConfig(num_crops=0)
