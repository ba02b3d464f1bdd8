"""A label map carried by the features of a frozen model, and by the target's own segments where asked."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from diffcorr.backbones.base import Backbone
from diffcorr.correspondence.features.base import FeatureSource
from diffcorr.data.labels import LabelMap
from diffcorr.errors import DiffcorrError
from diffcorr.joint.carry import label_shares, snap_to_segments, to_pixels, vote
from diffcorr.segmentation.base import SegmentationMethod
from diffcorr.types import UInt8Image


class CarryFeatures:
    """Target pixels take the labels of the source pixels whose features are nearest.

    Args:
        features: where features come from, such as `UNetFeatures` (DIFT).
        name: what stands beside its scores.
        cells: features of both images are interpolated to so many cells a side.
        neighbours, temperature: see `vote`.
        segments: a segmentation method for the target, which then decides what is the object and what is
            not, segment by segment (`snap_to_segments`); None: each pixel for itself.
        backbone: of the segmentation method.

    Raises:
        DiffcorrError: a value outside of its range.
    """

    def __init__(
        self,
        features: FeatureSource,
        name: str = "carry_features",
        cells: int = 32,
        neighbours: int = 20,
        temperature: float = 0.1,
        segments: SegmentationMethod | None = None,
        backbone: Backbone | None = None,
    ) -> None:
        for key, value in (("cells", cells), ("neighbours", neighbours)):
            if value < 1:
                raise DiffcorrError(f"expected {key} of at least 1, found {value}")
        if temperature <= 0:
            raise DiffcorrError(f"expected a temperature above 0, found {temperature}")
        self.features, self.name, self.cells = features, name, cells
        self.neighbours, self.temperature = neighbours, temperature
        self.segments, self.backbone = segments, backbone

    @torch.no_grad()
    def carry(
        self,
        source: UInt8Image,
        label: LabelMap,
        target: UInt8Image,
        source_key: str = "source",
        target_key: str = "target",
        category: str = "",
    ) -> LabelMap:
        """By votes, see `LabelCarrier.carry`.

        Raises:
            DiffcorrError: a label map of another size than its image, or one without known pixels.
        """
        if label.shape != source.shape[:2] or not (label >= 0).any():
            raise DiffcorrError(
                f"expected a label map of {source.shape[:2]} like its image with known pixels, found "
                f"{label.shape}, {int((label >= 0).sum())} known"
            )
        grid = (self.cells, self.cells)
        of_source, of_target = (
            F.interpolate(self.features(image, key, category).cpu()[None], grid, mode="bilinear")[0]
            for image, key in ((source, source_key), (target, target_key))
        )
        classes, shares = label_shares(label, grid)
        votes = vote(of_source, shares, of_target, neighbours=self.neighbours, temperature=self.temperature)
        pixels = to_pixels(votes, target.shape[:2])
        if self.segments is None or int(classes[0]) != 0 or len(classes) < 2:
            return classes[pixels.argmax(0)].numpy()
        (mask,) = self.segments.segment([target], backbone=self.backbone)
        return classes[snap_to_segments(pixels, mask)].numpy()
