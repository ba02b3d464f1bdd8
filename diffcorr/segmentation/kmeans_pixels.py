"""Baseline: K-means on the pixels' colours, with as many clusters as another method found segments."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from diffcorr.backbones.base import Backbone
from diffcorr.segmentation.base import CountsFrom, Mask, require_num_segments
from diffcorr.segmentation.kmeans import best_kmeans
from diffcorr.types import UInt8Image


@dataclass(frozen=True)
class KMeansPixels:
    """Clusters the pixels of each image by colour, and by place where asked.

    Args:
        position_weight: how far apart opposite sides of the image are, in units of the distance between
            no and full intensity of one colour channel; 0 leaves the place out.
        restarts: k-means++ starts; the tightest clustering is kept.
        max_iterations: Lloyd's iterations of each start.
        seed: of the starts; the same for every image, so that images do not depend on their order.
    """

    name: str = "kmeans_pixels"
    position_weight: float = 0.0
    restarts: int = 4
    max_iterations: int = 100
    seed: int = 0
    needs_backbone = False
    counts_from: ClassVar[CountsFrom] = "method"

    def segment(
        self,
        images: Sequence[UInt8Image],
        *,
        backbone: Backbone | None = None,
        num_segments: Sequence[int] | None = None,
    ) -> list[Mask]:
        """Masks of `num_segments` clusters, see `SegmentationMethod.segment`.

        An image with fewer distinct pixels than that gets fewer.

        Raises:
            DiffcorrError: no number of segments for each image.
        """
        counts = require_num_segments(self.name, images, num_segments)
        return [self._cluster(image, k) for image, k in zip(images, counts, strict=True)]

    def _cluster(self, image: UInt8Image, num_segments: int) -> Mask:
        points = self._features(image)
        labels, _ = best_kmeans(
            points, num_segments, restarts=self.restarts, max_iterations=self.max_iterations, seed=self.seed
        )
        return labels.view(image.shape[:2]).numpy()

    def _features(self, image: UInt8Image) -> Tensor:
        height, width = image.shape[:2]
        colour = torch.from_numpy(image).float().flatten(0, 1) / 255
        if self.position_weight == 0:
            return colour
        scale = self.position_weight / max(height, width)
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        place = torch.stack([columns, rows], -1).flatten(0, 1) * scale
        return torch.cat([colour, place], 1)
