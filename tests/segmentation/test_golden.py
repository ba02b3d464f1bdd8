"""Records of the authors' own program, see shared/data/parity/README.md."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from diffcorr.metrics.functional import class_counts, confusion
from diffcorr.segmentation.aggregate import aggregate
from diffcorr.segmentation.merge import anchor_distance, anchor_grid, merge
from diffcorr.segmentation.proposals import refine, suppress

FOLDER = Path(__file__).parents[3] / "shared/data/parity/diffseg"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="no golden records beside the checkout")

TAUS = {"easy": (0.5, 0.9, 1.1), "hard": (0.02, 0.1, 0.3, 0.9)}


class Golden:
    """One record, and what all its thresholds share."""

    def __init__(self, name: str) -> None:
        self.record: dict[str, Tensor] = load_file(FOLDER / f"{name}.safetensors")
        self.taus = TAUS[name]
        maps = {}
        for side in (64, 32, 16, 8):
            q = self.record[f"q_{side}"]
            maps[side, side] = (q @ q.mT / q.shape[-1] ** 0.5).softmax(-1).mean(0)[None]
        self.graph = aggregate(maps, dtype=torch.float64)
        self.anchors = anchor_grid((64, 64), 16)
        self.distance = anchor_distance(self.graph, self.anchors, mode="reference")

    def proposals(self, tau: float) -> Tensor:
        return merge(self.graph, self.anchors, tau, mode="reference", distance=self.distance)

    def agreement(self, proposals: Tensor, key: str) -> float:
        """Share of pixels with the recorded number."""
        return (mask_of(proposals) == self.record[key]).double().mean().item()


@pytest.fixture(scope="module", params=list(TAUS))
def golden(request: pytest.FixtureRequest) -> Golden:
    return Golden(request.param)


def mask_of(proposals: Tensor) -> Tensor:
    return suppress(proposals, (64, 64), (512, 512))[0]


def agreement_up_to_numbering(a: Tensor, b: Tensor) -> float:
    """Share of pixels that agree under the best one-to-one renumbering of segments."""
    overlap = confusion(a, b, int(b.max()) + 1).numpy()
    return overlap[linear_sum_assignment(overlap, maximize=True)].sum() / a.numel()


def test_aggregation(golden: Golden):
    expected = golden.record["aggregated_rows"].double()
    found = golden.graph.view(64, 64, 64, 64)[::8, ::8]
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)


def test_reference_masks_keep_even_the_numbering(golden: Golden):
    agreement = {tau: golden.agreement(golden.proposals(tau), f"mask_tau_{tau}") for tau in golden.taus}
    assert min(agreement.values()) >= 0.999, agreement


def test_refined_masks_keep_even_the_numbering(golden: Golden):
    refined = refine(golden.graph, golden.proposals(0.9))
    assert golden.agreement(refined, "mask_tau_0.9_kmeans") >= 0.999


def test_exact_arithmetic_finds_the_same_segments(golden: Golden):
    graph = golden.graph.float()
    distance = anchor_distance(graph, golden.anchors)
    agreement = {}
    for tau in (tau for tau in golden.taus if tau >= 0.1):
        exact = mask_of(merge(graph, golden.anchors, tau, distance=distance))
        reference = mask_of(golden.proposals(tau))
        agreement[tau] = agreement_up_to_numbering(exact, reference)
    assert min(agreement.values()) >= 0.99, agreement


def test_scores_under_the_original_accounting(golden: Golden):
    keys = [key.removeprefix("mask_") for key in golden.record if key.startswith("mask_")]
    assert len(keys) == len(golden.taus) + 1
    for key in keys:
        counts = class_counts(golden.record[f"mask_{key}"], golden.record["label"], 27, accounting="diffseg")
        assert torch.equal(counts.double(), golden.record[f"score_{key}"]), key
