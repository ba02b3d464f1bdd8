"""What all methods share that group the positions of a frozen model's maps: images in, masks out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffcorr.backbones.base import Backbone
from diffcorr.segmentation.base import CountsFrom, Mask
from diffcorr.segmentation.framing import Grid
from diffcorr.segmentation.proposals import suppress
from diffcorr.segmentation.reader import AttentionReader, Graph
from diffcorr.types import UInt8Image


@dataclass(frozen=True, kw_only=True)
class AttentionGrouper(AttentionReader, ABC):
    """Reads self-attention and groups the positions of each image; subclasses say how.

    Args: those of `AttentionReader`.
    """

    needs_backbone = True

    @property
    def counts_from(self) -> CountsFrom:
        """Whence the number of segments, see `SegmentationMethod`."""
        return "image"

    @abstractmethod
    def cluster(self, values: Tensor, grid: Grid, num_segments: Sequence[int] | None = None) -> Tensor:
        """Group the positions of each image.

        Args:
            values: (B, hw, hw) or (B, hw, D), see `Graph`.
            grid: (h, w).
            num_segments: wanted number for each image, for methods that do not find it themselves.

        Returns:
            (B, K, hw): how much each position belongs to each segment; rows of NaN are no segment.
        """

    def segment(
        self,
        images: Sequence[UInt8Image],
        *,
        backbone: Backbone | None = None,
        num_segments: Sequence[int] | None = None,
    ) -> list[Mask]:
        """Masks at the images' own sizes, see `SegmentationMethod.segment`.

        Raises:
            BackboneError: no backbone, or an input size that does not suit it.
            LayerError: unknown layers, or attention that is no distribution.
            UnknownNameError: a side that the layers do not have.
        """
        masks: dict[int, Mask] = {}
        for batch in self.read(images, backbone):
            counts = None if num_segments is None else [num_segments[place] for place in batch.places]
            clusters = self._cluster(batch.values, batch.grid, counts)
            for place, own, box in zip(batch.places, clusters, batch.boxes, strict=True):
                mask = suppress(own[None], batch.grid, images[place].shape[:2], box)[0]
                masks[place] = mask.cpu().numpy()
        return [masks[place] for place in range(len(images))]

    def group(self, graph: Graph, size: tuple[int, int], num_segments: int | None = None) -> Tensor:
        """The mask (H, W) int64 of one image of that size; a number may have no pixel."""
        counts = None if num_segments is None else [num_segments]
        clusters = self._cluster(graph.values[None], graph.grid, counts)
        return suppress(clusters, graph.grid, size, graph.box)[0]

    @torch.no_grad()
    def _cluster(self, values: Tensor, grid: Grid, num_segments: Sequence[int] | None) -> Tensor:
        # distances are small differences of large sums, which a trainer's low precision would swallow
        with torch.autocast(values.device.type, enabled=False):
            return self.cluster(values, grid, num_segments)
