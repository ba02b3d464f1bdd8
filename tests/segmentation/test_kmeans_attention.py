import numpy as np
import pytest
import torch
from scipy.cluster.vq import kmeans2

from diffcorr.backbones.unet import UNetBackbone
from diffcorr.errors import DiffcorrError
from diffcorr.segmentation import KMeansAttention, count_segments
from diffcorr.segmentation.merge import present
from tests.segmentation.test_reader import random_image


def clustered_graph(num_clusters: int, seed: int = 0) -> torch.Tensor:
    """(64, 64) rows around as many prototypes."""
    generator = torch.Generator().manual_seed(seed)
    prototypes = torch.randn(num_clusters, 64, generator=generator)
    member = torch.arange(64) % num_clusters
    return (2 * prototypes[member] + 0.3 * torch.randn(64, 64, generator=generator)).softmax(-1)


def test_positions_go_to_the_centre_that_scipy_finds():
    graph = clustered_graph(4)
    scores = KMeansAttention(num_segments=4).cluster(graph[None], (8, 8))[0]
    _, expected = kmeans2(graph.numpy(), graph[:4].numpy(), iter=50, minit="matrix")
    assert len(set(zip(scores.argmax(0).tolist(), expected.tolist(), strict=True))) == 4


def test_each_image_gets_its_own_number():
    graphs = torch.stack([clustered_graph(k, k) for k in (2, 5, 3)])
    scores = KMeansAttention(num_segments="classes").cluster(graphs, (8, 8), [2, 5, 3])
    assert present(scores).sum(1).tolist() == [2, 5, 3]
    alone = KMeansAttention(num_segments="classes").cluster(graphs[1:2], (8, 8), [5])
    torch.testing.assert_close(scores[1:2], alone)
    assert present(KMeansAttention(num_segments=100).cluster(graphs, (8, 8))).sum(1).tolist() == [64] * 3


def test_the_seed_decides(backbone: UNetBackbone):
    images = [random_image(seed=1)]
    masks = [KMeansAttention(num_segments=5, seed=s).segment(images, backbone=backbone)[0] for s in (0, 0, 1)]
    assert np.array_equal(masks[0], masks[1])
    assert count_segments(masks[2]) == 5


def test_what_it_needs_is_asked_for(backbone: UNetBackbone):
    assert KMeansAttention(num_segments=3).counts_from == "image"
    assert KMeansAttention(num_segments="classes").counts_from == "labels"
    with pytest.raises(DiffcorrError, match="number of classes of each of 1 images, found none"):
        KMeansAttention(num_segments="classes").segment([random_image()], backbone=backbone)
    for wrong in (0, "many", 2.5):
        with pytest.raises(DiffcorrError, match=">= 1 or 'classes'"):
            KMeansAttention(num_segments=wrong)
