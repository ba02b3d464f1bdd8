"""Scores of masks as a torchmetrics metric."""

from __future__ import annotations

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from diffcorr.errors import ProtocolError
from diffcorr.metrics.functional.items import first_of_each
from diffcorr.metrics.functional.segmentation import (
    accuracy_from_counts,
    class_counts,
    iou_from_counts,
    mean_iou_from_counts,
)
from diffcorr.metrics.protocols import MaskProtocol, mask_protocol


class SegmentationScore(Metric):
    """Mean IoU and pixel accuracy of class-agnostic masks under a named protocol, fractions in 0..1.

    Keeps the counts of every image, so that breakdowns and intervals need no second run.

    Args:
        num_classes: C, classes of the data set.
        protocol: a protocol, or its name in `MASK_PROTOCOLS`.
    """

    full_state_update = False
    higher_is_better = True
    is_differentiable = False
    index: list[Tensor]
    counts: list[Tensor]

    def __init__(self, num_classes: int, protocol: str | MaskProtocol = "per_image") -> None:
        super().__init__()
        if num_classes < 1:
            raise ProtocolError(f"expected one or more classes, found {num_classes}")
        self.num_classes = num_classes
        self.protocol = mask_protocol(protocol) if isinstance(protocol, str) else protocol
        self.add_state("index", default=[], dist_reduce_fx="cat")
        self.add_state("counts", default=[], dist_reduce_fx="cat")

    def update(self, mask: Tensor, label: Tensor, index: int) -> None:
        """Add one image.

        Args:
            mask: (H, W) integer segment ids >= 0.
            label: (H, W) integer classes, -1 ignored.
            index: place of the image in its list; identifies it across processes.

        Raises:
            ProtocolError: as `confusion`.
        """
        counts = class_counts(mask, label, self.num_classes, self.protocol.accounting)
        self.index.append(torch.tensor([index], device=self.device))
        self.counts.append(counts[None].to(self.device))

    def compute(self) -> dict[str, Tensor]:
        """``miou``, the mean over classes of IoU from summed counts, and ``accuracy``."""
        totals = self.per_image()[1].sum(0)
        return {"miou": mean_iou_from_counts(totals), "accuracy": accuracy_from_counts(totals)}

    def per_class(self) -> Tensor:
        """IoU of every class (C,), NaN for one that never occurs."""
        return iou_from_counts(self.per_image()[1].sum(0))

    def per_image(self) -> tuple[Tensor, Tensor]:
        """Image indices (N,) in ascending order, and the counts of each (N, 3, C): tp, fp, fn.

        Images of this process only, unless called between `sync` and `unsync`.
        """
        if not len(self.index):
            raise ProtocolError("expected one or more scored images, found none")
        # a sampler that pads its last batch repeats images: each counts once
        index, order = first_of_each(dim_zero_cat(self.index))
        return index, dim_zero_cat(self.counts)[order]
