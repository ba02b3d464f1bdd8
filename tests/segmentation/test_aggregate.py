import pytest
import torch

from diffcorr.errors import LayerError
from diffcorr.segmentation.aggregate import aggregate, mean_by_side


def random_maps(*sides: int, batch: int = 2) -> dict[int, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {s: torch.randn(batch, s * s, s * s, generator=generator).softmax(-1) for s in sides}


def bilinear(grid: torch.Tensor, side: int) -> torch.Tensor:
    """Upsampling written out: pixel centres at +0.5, borders repeated."""
    own = len(grid)
    result = torch.zeros(side, side, dtype=torch.float64)
    for y in range(side):
        for x in range(side):
            v = min(max((y + 0.5) * own / side - 0.5, 0), own - 1)
            u = min(max((x + 0.5) * own / side - 0.5, 0), own - 1)
            y0, x0 = int(v), int(u)
            y1, x1 = min(y0 + 1, own - 1), min(x0 + 1, own - 1)
            top = grid[y0, x0] * (1 - (u - x0)) + grid[y0, x1] * (u - x0)
            bottom = grid[y1, x0] * (1 - (u - x0)) + grid[y1, x1] * (u - x0)
            result[y, x] = top * (1 - (v - y0)) + bottom * (v - y0)
    return result


def test_equals_the_definition_position_by_position():
    maps = random_maps(8, 4, 2, batch=1)
    graph = aggregate(maps, dtype=torch.float64)[0].view(8, 8, 8, 8)
    for i, j in [(0, 0), (3, 5), (7, 2)]:
        expected = torch.zeros(8, 8, dtype=torch.float64)
        for side, layer in maps.items():
            row = (i * side // 8) * side + j * side // 8
            own = bilinear(layer[0, row].view(side, side).double(), 8)
            expected += side / 14 * own / own.sum()
        torch.testing.assert_close(graph[i, j], expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("sides", [(16, 8, 4), (12,), (10, 5, 3), (64, 8)])
def test_rows_are_distributions_for_any_set_of_sides(sides: tuple[int, ...]):
    graph = aggregate(random_maps(*sides, batch=1))
    assert graph.shape == (1, max(sides) ** 2, max(sides) ** 2)
    torch.testing.assert_close(graph.sum(-1), torch.ones(1, max(sides) ** 2))
    assert graph.min() >= 0


def test_images_of_a_batch_do_not_mix():
    maps = random_maps(8, 4, batch=3)
    alone = aggregate({side: layer[1:2] for side, layer in maps.items()})
    assert torch.equal(aggregate(maps)[1:2], alone)


def test_constant_maps_stay_constant():
    maps = {s: torch.full((1, s * s, s * s), 1 / (s * s)) for s in (8, 4)}
    torch.testing.assert_close(aggregate(maps), torch.full((1, 64, 64), 1 / 64))


def test_weights_choose_between_resolutions():
    maps = random_maps(8, 4)
    both = aggregate(maps, weights={8: 3.0, 4: 1.0})
    fine, coarse = aggregate({8: maps[8]}), aggregate({4: maps[4]}, side=8)
    torch.testing.assert_close(both, 0.75 * fine + 0.25 * coarse)


def test_layers_of_one_side_are_averaged():
    a, b, c = random_maps(4)[4], random_maps(4)[4] * 2, random_maps(2)[2]
    by_side = mean_by_side([c, a, b])
    assert list(by_side) == [4, 2]
    torch.testing.assert_close(by_side[4], (a + b) / 2)
    assert torch.equal(by_side[2], c)


def test_inputs_are_left_as_they_were():
    maps = random_maps(8, 4)
    copies = {side: layer.clone() for side, layer in maps.items()}
    mean_by_side([maps[8], maps[8]])
    aggregate(maps)
    assert all(torch.equal(maps[side], copies[side]) for side in maps)


@pytest.mark.parametrize("value", [float("nan"), 0.0, -1.0])
def test_maps_that_are_no_distribution_are_refused(value: float):
    maps = random_maps(8, 4)
    maps[4][1, 3] = value
    with pytest.raises(LayerError, match="side 4 is no distribution"):
        aggregate(maps)


def test_wrong_shapes_are_refused():
    with pytest.raises(LayerError, match="found none"):
        mean_by_side([])
    with pytest.raises(LayerError, match="found none"):
        aggregate({})
    with pytest.raises(LayerError, match=r"square self-attention \(B, hw, hw\), found shape \(1, 6, 6\)"):
        mean_by_side([torch.ones(1, 6, 6)])
    with pytest.raises(LayerError, match="raise the side"):
        aggregate(random_maps(8), side=4)
    with pytest.raises(LayerError, match=r"none for \[4\]"):
        aggregate(random_maps(8, 4), weights={8: 1.0})
