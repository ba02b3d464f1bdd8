"""Variants that read scores instead of probabilities, against hand-worked cases."""

import pytest
import torch

from diffcorr.attention.base import AttentionRead
from diffcorr.attention.logits import Logits
from diffcorr.attention.spatial_softmax import SpatialSoftmax


def read(token: int | tuple[int, ...] | None) -> AttentionRead:
    """One head, 3 pixels on a line, 2 tokens; scores [[0, 2], [2, 4], [4, -2]] at scale 2."""
    query = torch.tensor([[0.0, 1.0], [1.0, 2.0], [2.0, -1.0]])[None, None]
    return AttentionRead(query, torch.eye(2)[None, None], 2.0, "cross", token)


def test_logits_are_the_scores() -> None:
    assert Logits()(read(1)).tolist() == [[2.0, 4.0, -2.0]]
    assert Logits()(read((1, 0))).tolist() == [[[2.0, 0.0], [4.0, 2.0], [-2.0, 4.0]]]


def test_pixels_compete_for_each_token() -> None:
    found = SpatialSoftmax()(read(None))[0]
    soft = torch.tensor([[0.0, 2.0], [2.0, 4.0], [4.0, -2.0]]).softmax(0)
    assert found == pytest.approx((soft / soft.amax(0)).numpy())
    assert torch.equal(SpatialSoftmax()(read(1))[0], found[:, 1])


@pytest.mark.parametrize("variant", [Logits(), SpatialSoftmax()], ids=repr)
def test_other_tokens_change_nothing(variant: Logits | SpatialSoftmax) -> None:
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(1, 2, 9, 4, generator=generator), torch.randn(1, 2, 5, 4, generator=generator)
    before = variant(AttentionRead(query, key, 0.5, "cross", 2))
    key[:, :, 3] *= 10
    assert torch.equal(variant(AttentionRead(query, key, 0.5, "cross", 2)), before)


def test_several_heads_are_averaged() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key = torch.randn(1, 2, 9, 4, generator=generator), torch.randn(1, 2, 5, 4, generator=generator)
    both = AttentionRead(query, key, 0.5, "cross", 2)
    for variant in (Logits(), SpatialSoftmax()):
        alone = torch.stack([variant(both.head(c)) for c in range(2)]).mean(0)
        assert torch.allclose(variant(both), alone, atol=1e-6)
