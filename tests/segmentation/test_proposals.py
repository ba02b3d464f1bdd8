import pytest
import torch
import torch.nn.functional as F

from diffcorr.errors import DiffcorrError
from diffcorr.segmentation.proposals import CHUNK, refine, suppress


@pytest.mark.parametrize("size", [(8, 8), (20, 33), (3, 5)])
def test_equals_one_argmax_over_all_for_any_size(size: tuple[int, int]):
    proposals = torch.rand(2 * CHUNK + 3, 64, generator=torch.Generator().manual_seed(0))
    grids = proposals.view(-1, 1, 8, 8)
    expected = F.interpolate(grids, size=size, mode="bilinear", align_corners=False)[:, 0].argmax(0)
    assert torch.equal(suppress(proposals, size), expected)


def test_the_lowest_of_equals_wins_across_chunks():
    assert suppress(torch.full((CHUNK + 2, 4), 0.25), (4, 4)).eq(0).all()


def test_refine_moves_maps_to_the_nearest_proposal():
    maps = torch.tensor([[0.9, 0.1, 0, 0], [0.8, 0.2, 0, 0], [0, 0, 0.5, 0.5], [0.0, 0, 0.4, 0.6]])
    refined = refine(maps, maps[[0, 3]])
    torch.testing.assert_close(refined, torch.tensor([[0.85, 0.15, 0, 0], [0, 0, 0.45, 0.55]]))


def test_proposals_that_are_not_finite_are_refused():
    with pytest.raises(DiffcorrError, match="finite proposals"):
        suppress(torch.full((2, 4), torch.nan), (4, 4))
    with pytest.raises(DiffcorrError, match="one or more"):
        suppress(torch.zeros(0, 4), (4, 4))
