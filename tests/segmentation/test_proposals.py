import pytest
import torch
import torch.nn.functional as F

from diffcorr.errors import DiffcorrError
from diffcorr.segmentation.proposals import CHUNK, bilinear_weights, nearest, refine, suppress

NAN = torch.nan


def random_proposals(num: int, cells: int, batch: int = 1) -> torch.Tensor:
    return torch.rand(batch, num, cells, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("grid", [(8, 8), (4, 9)])
@pytest.mark.parametrize("size", [(8, 8), (20, 33), (3, 5)])
def test_equals_one_argmax_over_all_for_any_size(grid: tuple[int, int], size: tuple[int, int]):
    proposals = random_proposals(2 * CHUNK + 3, grid[0] * grid[1], batch=2)
    upsampled = F.interpolate(proposals.unflatten(-1, grid), size=size, mode="bilinear", align_corners=False)
    assert torch.equal(suppress(proposals, grid, size), upsampled.argmax(1))


@pytest.mark.parametrize("box", [(0, 0, 6, 4), (-1.5, 0.25, 7.5, 3.75), (2.0, -2.0, 5.5, 6.0)])
def test_a_box_is_sampled_where_it_lies(box: tuple[float, float, float, float]):
    proposals, (height, width) = random_proposals(5, 24), (11, 17)
    left, top, right, bottom = box
    x = left + (torch.arange(width) + 0.5) * (right - left) / width
    y = top + (torch.arange(height) + 0.5) * (bottom - top) / height
    # grid_sample counts -1..1 over the grid; beyond it the border continues
    places = torch.stack(torch.meshgrid(2 * x / 6 - 1, 2 * y / 4 - 1, indexing="xy"), -1)[None]
    sampled = F.grid_sample(
        proposals.view(1, 5, 4, 6), places, mode="bilinear", padding_mode="border", align_corners=False
    )
    assert torch.equal(suppress(proposals, (4, 6), (height, width), box)[0], sampled[0].argmax(0))


def test_weights_of_pixels_by_hand():
    # three pixels over two cells: at the first cell's centre (clamped), between both, at the second's
    expected = torch.tensor([[1, 0], [0.5, 0.5], [0, 1]], dtype=torch.float64)
    torch.testing.assert_close(bilinear_weights(2, 3, 0, 2), expected)
    assert bilinear_weights(1, 2, -3, 5).tolist() == [[1.0], [1.0]]


def test_the_lowest_of_equals_wins_across_chunks():
    assert suppress(torch.full((1, CHUNK + 2, 4), 0.25), (2, 2), (4, 4)).eq(0).all()


def test_absent_proposals_win_nothing_and_take_no_number():
    proposals = torch.tensor([[[NAN] * 4, [1.0, 0, 0, 0], [NAN] * 4, [0.0, 1, 1, 1]], [[1.0] * 4] * 4])
    assert suppress(proposals, (2, 2), (2, 2)).tolist() == [[[0, 1], [1, 1]], [[0, 0], [0, 0]]]


def test_refine_moves_maps_to_the_nearest_proposal():
    maps = torch.tensor([[0.9, 0.1, 0, 0], [0.8, 0.2, 0, 0], [0, 0, 0.5, 0.5], [0.0, 0, 0.4, 0.6]])
    proposals = torch.stack([maps[0], torch.full((4,), NAN), maps[3]])
    found = refine(maps[None], proposals[None])[0]
    torch.testing.assert_close(found[[0, 2]], torch.tensor([[0.85, 0.15, 0, 0], [0, 0, 0.45, 0.55]]))
    assert found[1].isnan().all()


def test_nearest_gives_each_map_to_one_proposal():
    maps = torch.tensor([[0.7, 0.1, 0.1, 0.1], [0.6, 0.2, 0.1, 0.1], [0.1, 0.1, 0.1, 0.7], [0, 0.1, 0, 0.9]])
    proposals = torch.stack([torch.full((4,), NAN), maps[1], maps[2]])
    found = nearest(maps[None], proposals[None])[0]
    assert found[0].isnan().all()
    assert found[1:].tolist() == [[1, 1, 0, 0], [0, 0, 1, 1]]


def test_proposals_that_are_not_finite_are_refused():
    with pytest.raises(DiffcorrError, match="finite proposals"):
        suppress(torch.full((1, 2, 4), NAN), (2, 2), (4, 4))
    with pytest.raises(DiffcorrError, match="one or more"):
        suppress(torch.zeros(1, 0, 4), (2, 2), (4, 4))
