import numpy as np
import pytest
import torch
from scipy.cluster.vq import kmeans2

from diffcorr.errors import DiffcorrError
from diffcorr.segmentation.kmeans import inertia, kmeans, plus_plus


def blobs(num_points: int = 300, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    centres = torch.tensor([[0.0, 0.0], [5.0, 1.0], [-2.0, 6.0]])
    member = torch.randint(0, 3, (num_points,), generator=generator)
    return centres[member] + torch.randn(num_points, 2, generator=generator)


def test_equals_scipy_from_the_same_start():
    points = blobs().double()
    start = points[[3, 50, 200, 7]]
    labels, centres = kmeans(points, start, tolerance=0)
    expected_centres, expected_labels = kmeans2(points.numpy(), start.numpy(), iter=300, minit="matrix")
    np.testing.assert_array_equal(labels.numpy(), expected_labels)
    np.testing.assert_allclose(centres.numpy(), expected_centres)


def test_a_cluster_that_runs_empty_restarts_at_the_farthest_point():
    points = torch.tensor([[0.0], [0.1], [0.2], [10.0]])
    labels, centres = kmeans(points, torch.tensor([[0.1], [500.0]]))
    assert labels.tolist() == [0, 0, 0, 1]
    torch.testing.assert_close(centres, torch.tensor([[0.1], [10.0]]))


def test_fewer_distinct_points_than_clusters():
    points = torch.tensor([[1.0], [1.0], [2.0], [2.0]])
    start = plus_plus(points, 3, torch.Generator().manual_seed(0))
    labels, centres = kmeans(points, start)
    assert centres.isfinite().all()
    assert labels[0] == labels[1]
    assert labels[2] == labels[3]
    assert labels[0] != labels[2]


def test_plus_plus_picks_far_points():
    points = torch.cat([torch.zeros(99, 1), torch.ones(1, 1)])
    for seed in range(5):
        starts = plus_plus(points, 2, torch.Generator().manual_seed(seed))
        assert sorted(starts.flatten().tolist()) == [0.0, 1.0]


def test_inertia_by_hand():
    assert inertia(torch.tensor([[0.0], [2.0]]), torch.tensor([0, 0]), torch.tensor([[1.0]])) == 2.0


def test_too_many_clusters_are_refused():
    with pytest.raises(DiffcorrError, match=r"expected 1\.\.2 clusters .* found 3"):
        kmeans(torch.zeros(2, 1), torch.zeros(3, 1))
