"""Scores of masks as a torchmetrics metric."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from diffcorr.errors import ProtocolError
from diffcorr.metrics.frames import see
from diffcorr.metrics.functional.items import first_of_each
from diffcorr.metrics.functional.segmentation import (
    accuracy_from_counts,
    confusion,
    counts_of_image,
    counts_of_match,
    iou_from_counts,
    match_segments,
    mean_iou_from_counts,
)
from diffcorr.metrics.protocols import MaskProtocol, mask_protocol


class SegmentationScore(Metric):
    """Mean IoU and pixel accuracy of class-agnostic masks under a named protocol, fractions in 0..1.

    Keeps the confusion of every image, without its zeros: breakdowns and intervals need no second run, and a
    match over the whole data set is made of what all processes saw.

    Args:
        num_classes: C, classes of the data set.
        protocol: a protocol, or its name in `MASK_PROTOCOLS`.
        background: the class of everything that is no object, where the data set has one; only protocols
            that treat it apart (``diffcut_128``) use it.

    Raises:
        ProtocolError: no classes, or a background that is none of them.
        UnknownNameError: unknown protocol.
    """

    full_state_update = False
    higher_is_better = True
    is_differentiable = False
    index: list[Tensor]
    sizes: list[Tensor]
    cells: list[Tensor]

    def __init__(
        self, num_classes: int, protocol: str | MaskProtocol = "per_image", background: int | None = None
    ) -> None:
        super().__init__()
        self.protocol = mask_protocol(protocol) if isinstance(protocol, str) else protocol
        if num_classes < 1:
            raise ProtocolError(
                f"expected labels to score masks under {self.protocol.name!r}, found a data set without any: "
                "it is for figures only"
            )
        if background is not None and not 0 <= background < num_classes:
            raise ProtocolError(f"expected a background among {num_classes} classes, found {background}")
        self.num_classes = num_classes
        self.background = background if self.protocol.merge_background else None
        self.add_state("index", default=[], dist_reduce_fx="cat")
        self.add_state("sizes", default=[], dist_reduce_fx="cat")
        self.add_state("cells", default=[], dist_reduce_fx="cat")

    def update(self, mask: Tensor, label: Tensor, index: int) -> None:
        """Add one image.

        Args:
            mask: (H, W) integer segment ids >= 0; for a match over the data set, ids that mean the same in
                all images; for the accounting ``named`` classes, -1 for none.
            label: (H, W) integer classes, -1 ignored.
            index: place of the image in its list; identifies it across processes.

        Raises:
            ProtocolError: as `confusion`.
        """
        if mask.shape != label.shape:
            raise ProtocolError(
                f"expected mask and label of one shape, found {tuple(mask.shape)} and {tuple(label.shape)}"
            )
        mask, label = (see(pixels, self.protocol.frame) for pixels in (mask, label))
        if self.protocol.accounting == "named":
            mask = mask.where(mask >= 0, self.num_classes)  # no class
        if self.background is not None:
            label = label.where(label >= 0, self.background)
        hist_CK = confusion(mask, label, self.num_classes)
        places = hist_CK.nonzero()
        cells = torch.cat([places, hist_CK[places[:, 0], places[:, 1], None]], 1)
        self.index.append(torch.tensor([index], device=self.device))
        self.sizes.append(torch.tensor([[len(cells), hist_CK.shape[1]]], device=self.device))
        self.cells.append(cells.to(self.device))

    def compute(self) -> dict[str, Tensor]:
        """``miou``, the mean over classes of IoU from summed counts, and ``accuracy``."""
        totals = self.per_image()[1].sum(0)
        return {"miou": mean_iou_from_counts(totals), "accuracy": accuracy_from_counts(totals)}

    def per_class(self) -> Tensor:
        """IoU of every class (C,), NaN for one that never occurs."""
        return iou_from_counts(self.per_image()[1].sum(0))

    def per_image(self) -> tuple[Tensor, Tensor]:
        """Image indices (N,) in ascending order, and the counts of each (N, 3, C): tp, fp, fn.

        Images of this process only, unless called between `sync` and `unsync`. Under a match over the data
        set, the counts of each image are those of the one match.
        """
        if not len(self.index):
            raise ProtocolError("expected one or more scored images, found none")
        # a sampler that pads its last batch repeats images: each counts once
        index, order = first_of_each(dim_zero_cat(self.index))
        hists = list(self._confusions(order.tolist()))
        if self.protocol.accounting == "global":
            class_of = self._match(hists)
            counts = [counts_of_match(hist, class_of[: hist.shape[1]]) for hist in hists]
        else:
            counts = [counts_of_image(hist, self.protocol.accounting, self.background) for hist in hists]
        return index, torch.stack(counts)

    def classes_of_segments(self) -> Tensor:
        """The class that each segment id stands for in all images (K,), -1 for none; matched once.

        Raises:
            ProtocolError: the protocol matches image by image, or no image was scored.
        """
        if self.protocol.accounting != "global":
            raise ProtocolError(
                f"expected a protocol with one match for all images, such as 'global', found "
                f"{self.protocol.name!r}, which matches image by image"
            )
        if not len(self.index):
            raise ProtocolError("expected one or more scored images, found none")
        return self._match(list(self._confusions(first_of_each(dim_zero_cat(self.index))[1].tolist())))

    def _confusions(self, order: list[int]) -> Iterator[Tensor]:
        sizes = dim_zero_cat(self.sizes)
        blocks = dim_zero_cat(self.cells).split(sizes[:, 0].tolist())
        for place in order:
            classes, segments, pixels = blocks[place].unbind(1)
            hist = pixels.new_zeros(self.num_classes, int(sizes[place, 1]))
            hist[classes, segments] = pixels
            yield hist

    def _match(self, hists: list[Tensor]) -> Tensor:
        total = hists[0].new_zeros(self.num_classes, max(hist.shape[1] for hist in hists))
        for hist in hists:
            total[:, : hist.shape[1]] += hist
        return match_segments(total, "global")
