"""``exact`` and ``reference`` on the embedded model: the same segments, and why a pixel may differ."""

import pytest
import torch

from diffcorr.backbones.unet import UNetBackbone
from diffcorr.data.partworld import PartWorldSegmentation
from diffcorr.segmentation import DiffSeg, Graph
from diffcorr.segmentation.merge import anchor_distance, merge
from diffcorr.segmentation.proposals import suppress
from tests.segmentation.test_golden import agreement_up_to_numbering

NUM_IMAGES, SIZE = 12, (128, 128)
TAUS = [0.1, 0.26, 0.9]


@pytest.fixture(scope="module")
def graphs() -> dict[str, list[Graph]]:
    tiny = UNetBackbone.from_pretrained("tiny")
    data = PartWorldSegmentation("val", NUM_IMAGES)
    images = [data[i]["image"] for i in range(NUM_IMAGES)]
    return {mode: DiffSeg(mode=mode, sides=2).affinity(images, tiny) for mode in ("exact", "reference")}


def test_both_find_the_same_segments(graphs: dict[str, list[Graph]]):
    agreement = torch.zeros(len(TAUS))
    for exact, reference in zip(*graphs.values(), strict=True):
        masks = DiffSeg().sweep(exact, SIZE, TAUS), DiffSeg(mode="reference").sweep(reference, SIZE, TAUS)
        agreement += torch.tensor([agreement_up_to_numbering(a, b) for a, b in zip(*masks, strict=True)])
    assert (agreement / NUM_IMAGES).min() >= 0.99, agreement / NUM_IMAGES


def test_what_differs_is_the_rounding_of_the_first_pass(graphs: dict[str, list[Graph]]):
    """With distances in double precision, all else of `reference` gives the pixels of `exact`."""
    anchors = DiffSeg().anchor_positions((16, 16))
    for exact, reference in zip(*graphs.values(), strict=True):
        maps = reference.values[None]
        distance = anchor_distance(maps, anchors)
        for tau, mask in zip(TAUS, DiffSeg().sweep(exact, SIZE, TAUS), strict=True):
            merged = merge(maps, anchors, tau, mode="reference", distance=distance)
            assert agreement_up_to_numbering(mask, suppress(merged, (16, 16), SIZE)[0]) >= 0.999
