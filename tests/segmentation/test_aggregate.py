import pytest
import torch

from diffcorr.errors import LayerError
from diffcorr.segmentation.aggregate import aggregate, restrict


def random_maps(*grids: int | tuple[int, int], batch: int = 2) -> dict[tuple[int, int], torch.Tensor]:
    """By (h, w); a single number is a square."""
    generator = torch.Generator().manual_seed(0)
    both = [(g, g) if isinstance(g, int) else g for g in grids]
    return {(h, w): torch.randn(batch, h * w, h * w, generator=generator).softmax(-1) for h, w in both}


def bilinear(grid: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Upsampling written out: pixel centres at +0.5, borders repeated."""
    own_height, own_width = grid.shape
    result = torch.zeros(height, width, dtype=torch.float64)
    for y in range(height):
        for x in range(width):
            v = min(max((y + 0.5) * own_height / height - 0.5, 0), own_height - 1)
            u = min(max((x + 0.5) * own_width / width - 0.5, 0), own_width - 1)
            y0, x0 = int(v), int(u)
            y1, x1 = min(y0 + 1, own_height - 1), min(x0 + 1, own_width - 1)
            top = grid[y0, x0] * (1 - (u - x0)) + grid[y0, x1] * (u - x0)
            bottom = grid[y1, x0] * (1 - (u - x0)) + grid[y1, x1] * (u - x0)
            result[y, x] = top * (1 - (v - y0)) + bottom * (v - y0)
    return result


@pytest.mark.parametrize("grids", [[(8, 8), (4, 4), (2, 2)], [(4, 10), (2, 5)], [(9, 6), (3, 2)]])
def test_equals_the_definition_position_by_position(grids: list[tuple[int, int]]):
    maps = random_maps(*grids, batch=1)
    height, width = grids[0]
    graph = aggregate(maps, dtype=torch.float64)[0].view(height, width, height, width)
    for i, j in [(0, 0), (height // 2, width - 3), (height - 1, 2)]:
        expected = torch.zeros(height, width, dtype=torch.float64)
        for (h, w), layer in maps.items():
            row = (i * h // height) * w + j * w // width
            own = bilinear(layer[0, row].view(h, w).double(), height, width)
            expected += h / sum(g[0] for g in grids) * own / own.sum()
        torch.testing.assert_close(graph[i, j], expected, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("sides", [(16, 8, 4), (12,), (10, 5, 3), (64, 8)])
def test_rows_are_distributions_for_any_set_of_sides(sides: tuple[int, ...]):
    graph = aggregate(random_maps(*sides, batch=1))
    assert graph.shape == (1, max(sides) ** 2, max(sides) ** 2)
    torch.testing.assert_close(graph.sum(-1), torch.ones(1, max(sides) ** 2))
    assert graph.min() >= 0


def test_images_of_a_batch_do_not_mix():
    maps = random_maps(8, 4, batch=3)
    alone = aggregate({grid: layer[1:2] for grid, layer in maps.items()})
    assert torch.equal(aggregate(maps)[1:2], alone)


def test_constant_maps_stay_constant():
    maps = {(s, s): torch.full((1, s * s, s * s), 1 / (s * s)) for s in (8, 4)}
    torch.testing.assert_close(aggregate(maps), torch.full((1, 64, 64), 1 / 64))


def test_weights_choose_between_resolutions():
    maps = random_maps(8, 4)
    both = aggregate(maps, weights={(8, 8): 3.0, (4, 4): 1.0})
    fine, coarse = aggregate({(8, 8): maps[8, 8]}), aggregate({(4, 4): maps[4, 4]}, grid=(8, 8))
    torch.testing.assert_close(both, 0.75 * fine + 0.25 * coarse)


def test_inputs_are_left_as_they_were():
    maps = random_maps(8, 4)
    copies = {grid: layer.clone() for grid, layer in maps.items()}
    aggregate(maps)
    assert all(torch.equal(maps[grid], copies[grid]) for grid in maps)


def test_the_cells_of_a_window_keep_their_attention_to_one_another():
    graph = aggregate(random_maps((3, 4)))
    found = restrict(graph, (3, 4), (slice(1, 3), slice(0, 2)))
    cells = [4, 5, 8, 9]
    for b in range(2):
        for i, row in enumerate(cells):
            own = graph[b, row, cells]
            torch.testing.assert_close(found[b, i], own / own.sum())
    assert restrict(graph, (3, 4), (slice(0, 3), slice(0, 4))) is graph


def test_attention_that_all_goes_beyond_the_window_becomes_even():
    graph = torch.eye(4)[None, [3, 3, 3, 3]]
    assert restrict(graph, (2, 2), (slice(0, 1), slice(0, 2))).tolist() == [[[0.5, 0.5], [0.5, 0.5]]]


@pytest.mark.parametrize("value", [float("nan"), 0.0, -1.0])
def test_maps_that_are_no_distribution_are_refused(value: float):
    maps = random_maps(8, 4)
    maps[4, 4][1, 3] = value
    with pytest.raises(LayerError, match=r"attention of \(4, 4\) is no distribution"):
        aggregate(maps)


def test_single_zeros_are_allowed():
    maps = random_maps(4)
    maps[4, 4][:, :, 3] = 0
    graph = aggregate(maps)
    assert graph.isfinite().all()
    torch.testing.assert_close(graph.sum(-1), torch.ones(2, 16))


def test_wrong_shapes_are_refused():
    with pytest.raises(LayerError, match="found none"):
        aggregate({})
    with pytest.raises(LayerError, match=r"maps \(B, hw, hw\) of \(2, 3\), found shape \(1, 6, 5\)"):
        aggregate({(2, 3): torch.ones(1, 6, 5)})
    with pytest.raises(LayerError, match="raise the graph's grid"):
        aggregate(random_maps(8), grid=(8, 4))
    with pytest.raises(LayerError, match=r"none for \[\(4, 4\)\]"):
        aggregate(random_maps(8, 4), weights={(8, 8): 1.0})
