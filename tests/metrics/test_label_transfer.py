"""Scores of carried label maps: by hand, and against counting pixel by pixel."""

import numpy as np
import pytest
import torch

from diffcorr.errors import ProtocolError
from diffcorr.metrics.functional.label_transfer import label_transfer_scores
from diffcorr.metrics.label_transfer import LabelTransfer


def test_scores_by_hand():
    label = torch.tensor([[0, 0, 0, 1, 1, 2, 2, -1]])
    found = torch.tensor([[0, 0, 3, 1, 2, 2, 0, 1]])
    # right: 0, 0, 1, 2 of seven; object or not: all but the third and the seventh; 3 of 5 in both
    assert label_transfer_scores(found, label).tolist() == pytest.approx([4 / 7, 5 / 7, 3 / 5])
    nothing = torch.zeros(2, 2, dtype=torch.int64)
    assert label_transfer_scores(nothing, nothing).tolist() == [1, 1, 1]


def test_scores_against_counting():
    rng = np.random.default_rng(0)
    label, found = rng.integers(-1, 4, (9, 7)), rng.integers(0, 4, (9, 7))
    pairs = [(a, b) for a, b in zip(found.ravel(), label.ravel(), strict=True) if b >= 0]
    both, either = (sum(op(a > 0, b > 0) for a, b in pairs) for op in (np.logical_and, np.logical_or))
    expected = [
        sum(a == b for a, b in pairs) / len(pairs),
        sum((a > 0) == (b > 0) for a, b in pairs) / len(pairs),
        both / either,
    ]
    scores = label_transfer_scores(torch.from_numpy(found), torch.from_numpy(label))
    assert scores.tolist() == pytest.approx(expected)


def test_every_pair_weighs_the_same_and_counts_once():
    metric = LabelTransfer()
    one, small = torch.ones(8, 8, dtype=torch.int64), torch.zeros(1, 2, dtype=torch.int64)
    metric.update(one, one, 3)
    metric.update(1 - small, torch.tensor([[0, 1]]), 1)
    metric.update(torch.zeros_like(one), one, 3)  # a padded sampler's repetition
    index, scores = metric.per_pair()
    assert index.tolist() == [1, 3]
    assert scores.tolist() == [[0.5, 0.5, 0.5], [1, 1, 1]]
    assert {k: v.item() for k, v in metric.compute().items()} == {
        "label_accuracy": 0.75,
        "mask_accuracy": 0.75,
        "mask_iou": 0.75,
    }


def test_what_cannot_be_scored_is_told():
    label = torch.zeros(2, 2, dtype=torch.int64)
    for found in (label[:1], label.float()):
        with pytest.raises(ProtocolError, match="label maps of integers of one shape"):
            label_transfer_scores(found, label)
    with pytest.raises(ProtocolError, match="all of them ignored"):
        label_transfer_scores(label, label - 1)
    with pytest.raises(ProtocolError, match="one or more scored pairs"):
        LabelTransfer().compute()
