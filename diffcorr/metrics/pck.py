"""PCK as a torchmetrics metric."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from diffcorr.errors import ProtocolError
from diffcorr.metrics.functional.items import first_of_each
from diffcorr.metrics.functional.pck import correct_points
from diffcorr.metrics.protocols import PointProtocol, point_protocol


class PCK(Metric):
    """Percentage of correct keypoints under a named protocol, as fractions in 0..1.

    Keeps the counts of every pair, so that breakdowns and intervals need no second run.

    Args:
        protocol: a protocol, or its name in `POINT_PROTOCOLS`.
    """

    full_state_update = False
    higher_is_better = True
    is_differentiable = False
    index: list[Tensor]
    correct: list[Tensor]
    total: list[Tensor]

    def __init__(self, protocol: str | PointProtocol = "standard") -> None:
        super().__init__()
        self.protocol = point_protocol(protocol) if isinstance(protocol, str) else protocol
        self.add_state("index", default=[], dist_reduce_fx="cat")
        self.add_state("correct", default=[], dist_reduce_fx="cat")
        self.add_state("total", default=[], dist_reduce_fx="cat")

    def update(self, pred: Tensor, target: Tensor, threshold_length: float, index: int) -> None:
        """Add one pair.

        Args:
            pred: (N, 2) predicted points (x, y) in original pixels of the target.
            target: (N, 2) true points.
            threshold_length: length in the same pixels that alpha multiplies (`threshold_length` of the
                protocol).
            index: place of the pair in its list; identifies it across processes.

        Raises:
            ProtocolError: as `correct_points`.
        """
        protocol = self.protocol
        correct = correct_points(
            pred, target, threshold_length, protocol.alphas, inclusive=protocol.inclusive
        )
        self.index.append(torch.tensor([index], device=self.device))
        self.correct.append(correct.sum(1)[None].to(self.device))
        self.total.append(torch.tensor([len(pred)], device=self.device))

    def compute(self) -> dict[str, Tensor]:
        """PCK at every alpha of the protocol, keyed ``pck@0.10``."""
        score, weight = self.parts().sum(0).unbind(-1)
        return dict(zip(self.names(), score / weight, strict=True))

    def names(self) -> list[str]:
        """Metric names in the order of the protocol's alphas."""
        return [f"pck@{alpha:.2f}" for alpha in self.protocol.alphas]

    def per_pair(self) -> tuple[Tensor, Tensor]:
        """Pair indices (N,) in ascending order, and the fraction correct of each at each alpha (N, A).

        Pairs of this process only, unless called between `sync` and `unsync`.
        """
        index, correct, total = self._counts()
        return index, correct.double() / total[:, None]

    def parts(self) -> Tensor:
        """What each pair adds to numerator and denominator of each PCK, (N, A, 2) in order of the index."""
        _, correct, total = self._counts()
        weight = total[:, None].double().expand(correct.shape)
        parts = torch.stack([correct.double(), weight], -1)
        return parts if self.protocol.average == "point" else parts / weight[..., None]

    def _counts(self) -> tuple[Tensor, Tensor, Tensor]:
        if not len(self.index):
            raise ProtocolError("expected one or more scored pairs, found none")
        index = dim_zero_cat(self.index)
        # a sampler that pads its last batch repeats pairs: each counts once
        index, order = first_of_each(index)
        return index, dim_zero_cat(self.correct)[order], dim_zero_cat(self.total)[order]
