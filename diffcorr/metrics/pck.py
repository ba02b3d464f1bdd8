"""PCK as a torchmetrics metric."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from diffcorr.errors import ProtocolError
from diffcorr.metrics.functional.items import first_of_each
from diffcorr.metrics.functional.pck import (
    average_pairs,
    correct_points,
    groups_of,
    sum_per_pair,
    weighted_parts,
)
from diffcorr.metrics.protocols import PointProtocol, metric_name, point_protocol


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
    category: list[Tensor]

    def __init__(self, protocol: str | PointProtocol = "standard") -> None:
        super().__init__()
        self.protocol = point_protocol(protocol) if isinstance(protocol, str) else protocol
        for state in ("index", "correct", "total", "category"):
            self.add_state(state, default=[], dist_reduce_fx="cat")

    def update(
        self,
        pred: Tensor,
        target: Tensor,
        threshold_length: float | Tensor,
        index: int | Tensor,
        category: int | Tensor | None = None,
        scale: Tensor | None = None,
        sizes: Tensor | None = None,
    ) -> None:
        """Add one pair, or P pairs whose points stand one after the other.

        Args:
            pred: (N, 2) predicted points (x, y) in original pixels of the target; a NaN is wrong.
            target: (N, 2) true points.
            threshold_length: (P,) lengths that alpha multiplies, in pixels of the protocol's space
                (`PointProtocol.threshold_lengths`); one number for one pair.
            index: (P,) places of the pairs in their list; identify them across batches and processes.
            category: (P,) numbers of their categories, the same in every process; needed by protocols
                that average over categories.
            scale: (P, 2) pixels of the protocol's space for one original pixel
                (`PointProtocol.scales`); needed unless the space is ``original``.
            sizes: (P,) points of each pair, one or more; None for one pair.

        Raises:
            ProtocolError: as `correct_points`; a number of points, lengths or indices that does not
                fit the others; no category or scale where the protocol needs it.
        """
        protocol = self.protocol
        if category is None and protocol.average.startswith("category"):
            raise ProtocolError(f"protocol {protocol.name!r} averages over categories, found none: pass them")
        if scale is None and protocol.space != "original":
            raise ProtocolError(f"protocol {protocol.name!r} measures in {protocol.space}: pass the scale")
        count = torch.tensor([len(pred)]) if sizes is None else sizes
        count = count.to(pred.device, torch.int64)
        num_pairs = len(count)
        length, place, group = (
            torch.as_tensor(value, device=pred.device).reshape(-1)
            for value in (threshold_length, index, torch.zeros(num_pairs) if category is None else category)
        )
        fits = len(length) == len(place) == len(group) == num_pairs and int(count.sum()) == len(pred)
        if not fits or bool((count < 1).any()):
            raise ProtocolError(
                f"expected a length, an index and a category for each of {num_pairs} pairs and one or more "
                f"points of each, found {len(length)}, {len(place)}, {len(group)} and {len(pred)} points"
            )
        owner = torch.repeat_interleave(count)
        correct = correct_points(
            pred,
            target,
            length.double()[owner],
            protocol.alphas,
            inclusive=protocol.inclusive,
            scale=None if scale is None else scale.reshape(-1, 2).to(pred.device)[owner],
        )
        self.index.append(place.to(self.device, torch.int64))
        self.correct.append(sum_per_pair(correct.T.long(), owner, num_pairs).to(self.device))
        self.total.append(count.to(self.device))
        self.category.append(group.to(self.device, torch.int64))

    def compute(self) -> dict[str, Tensor]:
        """PCK at every alpha of the protocol, keyed ``pck@0.10``."""
        _, correct, total, category = self._counts()
        score = average_pairs(correct, total, category, self.protocol.average)
        return dict(zip(self.names(), score, strict=True))

    def names(self) -> list[str]:
        """Metric names in the order of the protocol's alphas."""
        return [metric_name(alpha) for alpha in self.protocol.alphas]

    def per_pair(self) -> tuple[Tensor, Tensor]:
        """Pair indices (N,) in ascending order, and the fraction correct of each at each alpha (N, A).

        Pairs of this process only, unless called between `sync` and `unsync`.
        """
        index, correct, total, _ = self._counts()
        return index, correct.double() / total[:, None]

    def num_points(self) -> Tensor:
        """Points of each pair (N,) that are scored, in order of the index."""
        return self._counts()[2]

    def parts(self) -> Tensor:
        """What each pair adds to numerator and denominator of each PCK, (N, A, 2) in order of the index.

        Under a protocol that averages over categories these are the parts of its category's PCK
        (`groups`).
        """
        _, correct, total, _ = self._counts()
        return weighted_parts(correct, total, self.protocol.average)

    def groups(self) -> Tensor:
        """Number (N,) of the average that each pair belongs to: 0, or its category's where it matters."""
        return groups_of(self._counts()[3], self.protocol.average)

    def _counts(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        if not len(self.index):
            raise ProtocolError("expected one or more scored pairs, found none")
        # a sampler that pads its last batch repeats pairs: each counts once
        index, order = first_of_each(dim_zero_cat(self.index))
        correct, total, category = (dim_zero_cat(s)[order] for s in (self.correct, self.total, self.category))
        return index, correct, total, category
