"""Scores of carried label maps as a torchmetrics metric."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from diffcorr.errors import ProtocolError
from diffcorr.metrics.functional.items import first_of_each
from diffcorr.metrics.functional.label_transfer import METRICS, label_transfer_scores

PROTOCOL = "label_transfer"
"""What stands beside these scores: all pixels of the target, every pair weighs the same."""


class LabelTransfer(Metric):
    """Means over pairs of `label_transfer_scores`."""

    full_state_update = False
    higher_is_better = True
    is_differentiable = False
    index: list[Tensor]
    scores: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        self.add_state("index", default=[], dist_reduce_fx="cat")
        self.add_state("scores", default=[], dist_reduce_fx="cat")

    def update(self, predicted: Tensor, label: Tensor, index: int) -> None:
        """Add one pair.

        Args:
            predicted: (H, W) integers, what the target was given.
            label: (H, W) integers, what it is, negative ignored.
            index: place of the pair in its list; identifies it across processes.

        Raises:
            ProtocolError: as `label_transfer_scores`.
        """
        self.index.append(torch.tensor([index], device=self.device))
        self.scores.append(label_transfer_scores(predicted, label)[None].to(self.device))

    def compute(self) -> dict[str, Tensor]:
        """``label_accuracy``, ``mask_accuracy`` and ``mask_iou``, means over pairs."""
        return dict(zip(METRICS, self.per_pair()[1].mean(0), strict=True))

    def per_pair(self) -> tuple[Tensor, Tensor]:
        """Indices (N,) in ascending order, and the scores (N, 3) of each pair."""
        if not len(self.index):
            raise ProtocolError("expected one or more scored pairs, found none")
        # a sampler that pads its last batch repeats pairs: each counts once
        index, order = first_of_each(dim_zero_cat(self.index))
        return index, dim_zero_cat(self.scores)[order]
