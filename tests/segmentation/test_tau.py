import numpy as np
import pytest
import torch

from diffcorr.errors import DiffcorrError
from diffcorr.segmentation.merge import anchor_grid, present
from diffcorr.segmentation.tau import MULTIPLES, choose_tau, modularity


def literal_modularity(maps: np.ndarray, labels: np.ndarray) -> float:
    """Newman (2004), summed over all pairs of nodes of the symmetric graph."""
    weights = (maps + maps.T) / 2
    degrees, total = weights.sum(1), weights.sum()
    same = labels[:, None] == labels
    return float(((weights - np.outer(degrees, degrees) / total) * same).sum() / total)


def test_modularity_equals_the_sum_over_pairs():
    rng = np.random.default_rng(0)
    maps = rng.dirichlet(np.ones(12), size=(2, 12))
    labels = np.stack([rng.integers(0, 4, 12), rng.integers(0, 2, 12) * 7])
    found = modularity(torch.from_numpy(maps), torch.from_numpy(labels))
    expected = [literal_modularity(m, own) for m, own in zip(maps, labels, strict=True)]
    np.testing.assert_allclose(found, expected, atol=1e-14)


def test_modularity_by_hand():
    # two pairs that attend to themselves alone: all attention within, a half of it by chance
    maps = torch.tensor([[[0.5, 0.5, 0, 0], [0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5], [0, 0, 0.5, 0.5]]])
    assert modularity(maps, torch.tensor([[0, 0, 1, 1]])).item() == pytest.approx(0.5)
    assert modularity(maps, torch.tensor([[0, 0, 0, 0]])).item() == pytest.approx(0)
    assert modularity(maps, torch.tensor([[0, 1, 0, 1]])).item() == pytest.approx(0)


def blocks(sizes: list[int], leak: float, seed: int = 0) -> torch.Tensor:
    """A graph of a 6 x 6 grid whose rows look at their own block, at the others by `leak`, and at random."""
    member = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    graph = torch.where(member[:, None] == member, 1.0, leak)
    graph += 0.3 * torch.rand(graph.shape, generator=torch.Generator().manual_seed(seed))
    return graph / graph.sum(1, keepdim=True)


@pytest.mark.parametrize("leak", [0.3, 0.1, 0.01])
def test_the_blocks_are_found_however_far_apart_they_are(leak: float):
    maps = torch.stack([blocks([12, 12, 12], leak), blocks([18, 18], leak), blocks([6] * 6, leak)])
    tau, proposals = choose_tau(maps, anchor_grid((6, 6), 6))
    assert present(proposals).sum(1).tolist() == [3, 2, 6]
    assert tau.shape == (3,)
    labels = proposals.nan_to_num(nan=-1).argmax(1)
    for own, size in zip(labels, (12, 18, 6), strict=True):
        assert all(len(set(part.tolist())) == 1 for part in own.split(size))


def test_the_choice_is_the_best_of_all_that_are_tried():
    maps, anchors = blocks([5, 9, 9, 13], 0.35)[None], anchor_grid((6, 6), 6)
    single = [choose_tau(maps, anchors, multiples=[m]) for m in MULTIPLES]
    scores = [modularity(maps, p.nan_to_num(nan=-1).argmax(1)).item() for _, p in single]
    tau, proposals = choose_tau(maps, anchors)
    best = int(np.argmax(scores))
    assert tau == single[best][0]
    torch.testing.assert_close(proposals, single[best][1], equal_nan=True)
    assert scores[best] > min(scores)


def test_equal_maps_are_one_segment_in_both_arithmetics():
    maps = torch.full((1, 36, 36), 1 / 36, dtype=torch.float64)
    for mode in ("exact", "reference"):
        tau, proposals = choose_tau(maps, anchor_grid((6, 6), 3), mode=mode)
        assert tau > 0
        assert present(proposals).sum() == 1


def test_nothing_to_try_is_refused():
    with pytest.raises(DiffcorrError, match="thresholds to try"):
        choose_tau(blocks([18, 18], 0.1)[None], torch.arange(4), multiples=[])
