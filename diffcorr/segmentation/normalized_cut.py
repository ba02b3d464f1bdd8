"""Normalised cuts (Shi & Malik, PAMI 2000): a graph in two, recursively, or in K at once.

A graph is a symmetric matrix W (n, n) of similarities >= 0. The cut of the nodes into parts costs
NCut = sum over parts of (weight from the part to the others) / (weight from the part to all), 0..K.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from diffcorr.errors import DiffcorrError
from diffcorr.segmentation.kmeans import best_kmeans

DENSE = 1024
"""Up to this many nodes all eigenvectors are computed; beyond, only those asked for, by iteration."""
BLOCK, DEPTH, CYCLES, TOLERANCE = 6, 12, 20, 1e-4


def cosine_affinity(features: Tensor, alpha: float) -> Tensor:
    """Similarities of features, as in DiffCut (Couairon et al., NeurIPS 2024, section 3.2).

    Cosines, stretched to 0..1 over the image, to the power alpha.

    Args:
        features: (n, D).
        alpha: the higher, the less do nodes that are somewhat alike count.

    Returns:
        (n, n) in 0..1; all 1 where all features are alike.
    """
    features = F.normalize(features, dim=1)
    cosine = features @ features.T
    low, high = cosine.min(), cosine.max()
    if float(high - low) <= 16 * torch.finfo(cosine.dtype).eps:
        return torch.ones_like(cosine)
    cosine = (cosine + cosine.T) / 2  # exactly symmetric
    return ((cosine - low) / (high - low)).clamp_(0, 1).pow_(alpha)


def ncut_value(affinity: Tensor, labels: Tensor) -> float:
    """NCut of a division into parts; (n, n) affinity, (n,) labels."""
    parts = [labels == part for part in labels.unique()]
    within_all = [(affinity[part][:, part].sum(), affinity[part].sum()) for part in parts]
    return float(sum((whole - within) / whole for within, whole in within_all))


def leading_vectors(affinity: Tensor, num_vectors: int, seed: int = 0) -> Tensor:
    """Eigenvectors of D^-1/2 W D^-1/2 with the largest eigenvalues (Shi & Malik, equation 7, as 1 - lambda).

    Args:
        affinity: (n, n) symmetric, >= 0.
        num_vectors: K <= n.
        seed: of the start of the iteration, beyond `DENSE` nodes.

    Returns:
        (n, K) orthonormal, largest first; the entry of each that is largest in size is positive.
    """
    scale = _degrees(affinity).rsqrt()
    matrix = scale[:, None] * affinity * scale
    if len(matrix) <= DENSE:
        vectors = torch.linalg.eigh(matrix)[1][:, -num_vectors:].flip(1)
    else:
        vectors = _block_krylov(matrix, num_vectors, seed)
    largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
    return vectors * largest.sign()


def bipartition(affinity: Tensor, seed: int = 0) -> tuple[Tensor, float]:
    """The best cut along the second eigenvector (Shi & Malik, section 3, steps 2 and 3).

    All n - 1 thresholds on the generalised eigenvector are tried.

    Args:
        affinity: (n, n) symmetric, >= 0, n >= 2.
        seed: see `leading_vectors`.

    Returns:
        (n,) whether a node lies in the first part, and the NCut of the two, 0..2.
    """
    degrees = _degrees(affinity)
    order = (leading_vectors(affinity, 2, seed)[:, 1] * degrees.rsqrt()).argsort(stable=True)
    ordered = affinity[order][:, order].double()
    # weight within the first i nodes grows by what the i-th shares with them, twice, and with itself
    within = (2 * ordered.tril(-1).sum(1) + ordered.diagonal()).cumsum(0)[:-1]
    first = ordered.sum(1).cumsum(0)[:-1]
    second = (ordered.sum() - first).clamp_min(torch.finfo(ordered.dtype).tiny)
    cut = (first - within).clamp_min(0)
    costs = cut / first.clamp_min(torch.finfo(ordered.dtype).tiny) + cut / second
    best = int(costs.argmin())
    inside = torch.zeros(len(affinity), dtype=torch.bool, device=affinity.device)
    inside[order[: best + 1]] = True
    return inside, float(costs[best])


def recursive_cut(affinity: Tensor, tau: float, seed: int = 0) -> Tensor:
    """Cut in two, then each part among its own nodes, as long as that costs less than tau.

    Args:
        affinity: (n, n) symmetric, >= 0.
        tau: bound on the NCut of a further cut, 0..2.
        seed: see `leading_vectors`.

    Returns:
        (n,) int64 labels 0..K-1.
    """
    labels = torch.zeros(len(affinity), dtype=torch.int64, device=affinity.device)
    parts = [torch.arange(len(affinity), device=affinity.device)]
    number = 0
    while parts:
        nodes = parts.pop()
        if len(nodes) > 1:
            inside, cost = bipartition(affinity[nodes][:, nodes], seed)
            if cost < tau:
                parts += [nodes[~inside], nodes[inside]]
                continue
        labels[nodes] = number
        number += 1
    return labels


def kway_cut(affinity: Tensor, num_parts: int, *, restarts: int = 4, seed: int = 0) -> Tensor:
    """Cut into K at once: K-means on the rows of the K leading eigenvectors, scaled to length 1.

    The relaxation of Yu & Shi (ICCV 2003) with the discretisation of Ng, Jordan & Weiss (NeurIPS 2001).

    Args:
        affinity: (n, n) symmetric, >= 0.
        num_parts: K, 1..n.
        restarts, seed: see `best_kmeans`.

    Returns:
        (n,) int64 labels 0..K-1.

    Raises:
        DiffcorrError: more parts than nodes, or none.
    """
    if not 1 <= num_parts <= len(affinity):
        raise DiffcorrError(f"expected 1..{len(affinity)} parts for as many nodes, found {num_parts}")
    rows = F.normalize(leading_vectors(affinity, num_parts, seed), dim=1)
    return best_kmeans(rows, num_parts, restarts=restarts, seed=seed)[0]


def _degrees(affinity: Tensor) -> Tensor:
    # a node without any weight, not even to itself, hangs on nothing: it must not become a division by zero
    return affinity.sum(1).clamp_min(torch.finfo(affinity.dtype).eps)


def _block_krylov(matrix: Tensor, num_vectors: int, seed: int) -> Tensor:
    """Leading eigenvectors (n, K), largest first, of a symmetric matrix by restarted block Krylov iteration.

    The block finds eigenvalues that occur several times, as those of separate clusters do (Musco & Musco,
    NeurIPS 2015). Ends when |M v - lambda v| < `TOLERANCE` for all of them, or after `CYCLES` restarts.
    """
    generator = torch.Generator().manual_seed(seed)
    block = torch.randn(len(matrix), num_vectors + BLOCK, generator=generator).to(matrix)
    for _ in range(CYCLES):
        blocks = [torch.linalg.qr(block)[0]]
        for _ in range(DEPTH):
            blocks.append(torch.linalg.qr(matrix @ blocks[-1])[0])
        basis = torch.linalg.qr(torch.cat(blocks, 1))[0]
        image = matrix @ basis
        values, turns = torch.linalg.eigh(basis.T @ image)
        best = turns.flip(1)[:, : block.shape[1]]
        block = basis @ best
        wrong = (image @ best - block * values.flip(0)[: block.shape[1]])[:, :num_vectors]
        if float(wrong.norm(dim=0).max()) < TOLERANCE:
            break
    return block[:, :num_vectors]
