import numpy as np
import pytest
import torch
from scipy.linalg import eigh

from diffcorr.errors import DiffcorrError
from diffcorr.segmentation import normalized_cut
from diffcorr.segmentation.normalized_cut import (
    bipartition,
    cosine_affinity,
    kway_cut,
    leading_vectors,
    ncut_value,
    recursive_cut,
)


def random_graph(nodes: int = 20, seed: int = 0) -> torch.Tensor:
    weights = torch.rand(nodes, nodes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (weights + weights.T) / 2


def clusters(sizes: list[int], leak: float = 0.05, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A graph of clusters in mixed order, and each node's cluster."""
    generator = torch.Generator().manual_seed(seed)
    member = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    member = member[torch.randperm(len(member), generator=generator)]
    noise = torch.rand(len(member), len(member), generator=generator, dtype=torch.float64)
    graph = torch.where(member[:, None] == member, 1.0, leak) + 0.02 * (noise + noise.T)
    return graph, member


def same_partition(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.equal(a[:, None] == a, b[:, None] == b)


@pytest.mark.parametrize("dense", [True, False])
def test_eigenvectors_equal_those_of_scipys_generalised_problem(dense: bool, monkeypatch):
    if not dense:
        monkeypatch.setattr(normalized_cut, "DENSE", 0)
    weights = random_graph(60)
    found = leading_vectors(weights, 4)
    degrees = weights.sum(1).numpy()
    # (D - W) y = lambda D y, Shi & Malik's equation 6: y = D^-1/2 z, lambda = 1 - eigenvalue of z
    values, y = eigh(np.diag(degrees) - weights.numpy(), np.diag(degrees))
    expected = np.sqrt(degrees)[:, None] * y[:, :4]
    expected *= np.sign(expected[np.abs(expected).argmax(0), range(4)])
    np.testing.assert_allclose(found.numpy(), expected, atol=1e-10 if dense else 2e-3)
    scaled = weights.numpy() / np.sqrt(np.outer(degrees, degrees))
    quotients = (found.numpy() * (scaled @ found.numpy())).sum(0)
    np.testing.assert_allclose(quotients, 1 - values[:4], atol=1e-10 if dense else 1e-6)


def test_iteration_finds_eigenvalues_that_occur_several_times(monkeypatch):
    monkeypatch.setattr(normalized_cut, "DENSE", 0)
    member = torch.repeat_interleave(torch.arange(5), 12)
    graph = (member[:, None] == member).double()  # five separate clusters: the eigenvalue 1 five times
    vectors = leading_vectors(graph, 5)
    torch.testing.assert_close(vectors.T @ vectors, torch.eye(5, dtype=torch.float64))
    torch.testing.assert_close(graph / 12 @ vectors, vectors, atol=1e-6, rtol=0)
    assert same_partition(kway_cut(graph, 5), member)


def literal_ncut(weights: np.ndarray, inside: np.ndarray) -> float:
    """cut(A, B) / assoc(A, V) + cut(A, B) / assoc(B, V), node by node."""
    cut = first = second = 0.0
    for i in range(len(weights)):
        for j in range(len(weights)):
            cut += weights[i, j] * (inside[i] and not inside[j])
            first += weights[i, j] * inside[i]
            second += weights[i, j] * (not inside[i])
    return cut / first + cut / second


@pytest.mark.parametrize("seed", range(3))
def test_the_cut_is_the_best_threshold_on_scipys_second_vector(seed: int):
    weights = random_graph(14, seed)
    inside, cost = bipartition(weights)
    degrees = np.diag(weights.sum(1).numpy())
    second = eigh(degrees - weights.numpy(), degrees)[1][:, 1]
    costs = {t: literal_ncut(weights.numpy(), second <= t) for t in np.sort(second)[:-1]}
    assert cost == pytest.approx(min(costs.values()))
    assert cost == pytest.approx(literal_ncut(weights.numpy(), inside.numpy()))
    assert cost == pytest.approx(ncut_value(weights, inside.long()))
    best = second <= min(costs, key=costs.__getitem__)
    assert same_partition(inside, torch.from_numpy(best))


def test_a_cut_by_hand():
    # a triangle and a pair, joined by one edge of weight 1: NCut = 1/7 + 1/3
    weights = torch.zeros(5, 5)
    for a, b in ((0, 1), (0, 2), (1, 2), (3, 4), (2, 3)):
        weights[a, b] = weights[b, a] = 1
    inside, cost = bipartition(weights)
    assert inside.tolist() in ([True, True, True, False, False], [False, False, False, True, True])
    assert cost == pytest.approx(1 / 7 + 1 / 3)


def test_recursion_stops_at_the_bound():
    graph, member = clusters([10, 14, 8])
    assert same_partition(recursive_cut(graph, 0.3), member)
    assert recursive_cut(graph, 1e-3).unique().tolist() == [0]
    assert recursive_cut(graph, 2.0).unique().tolist() == list(range(32))  # every node on its own


def test_numbers_have_no_gaps_and_order_does_not_matter():
    graph, _ = clusters([10, 14, 8, 5])
    order = torch.randperm(37, generator=torch.Generator().manual_seed(1))
    for cut in (lambda w: recursive_cut(w, 0.3), lambda w: kway_cut(w, 4)):
        labels = cut(graph)
        assert labels.unique().tolist() == [0, 1, 2, 3]
        assert same_partition(cut(graph[order][:, order]), labels[order])


@pytest.mark.parametrize("num_parts", [1, 2, 3, 6])
def test_k_parts_are_the_clusters(num_parts: int):
    graph, member = clusters([9] * num_parts)
    assert same_partition(kway_cut(graph, num_parts), member)


def test_cosine_affinity_by_hand():
    features = torch.tensor([[2.0, 0], [0, 1], [1, 1]])
    half = 0.5**0.5
    expected = torch.tensor([[1, 0, half], [0, 1, half], [half, half, 1]]) ** 3
    torch.testing.assert_close(cosine_affinity(features, 3), expected)


def test_features_without_any_difference_are_one_part():
    for features in (torch.ones(30, 4), torch.zeros(30, 4)):
        affinity = cosine_affinity(features, 10)
        assert affinity.eq(1).all()
        assert recursive_cut(affinity, 0.5).eq(0).all()
        assert kway_cut(affinity, 3).isfinite().all()


def test_nodes_without_any_weight_are_no_division_by_zero():
    assert np.isfinite(bipartition(torch.block_diag(torch.ones(4, 4), torch.zeros(2, 2)))[1])
    assert bipartition(torch.zeros(3, 3))[1] == 0
    assert kway_cut(torch.zeros(5, 5), 2).max() <= 1


def test_wrong_numbers_are_refused():
    with pytest.raises(DiffcorrError, match=r"expected 1\.\.20 parts .* found 21"):
        kway_cut(random_graph(), 21)
