"""Segmentation as a LightningModule: devices, precision and the loop; the methods hold the maths."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from lightning import LightningModule

from diffcorr.backbones.base import Backbone
from diffcorr.errors import BackboneError, DiffcorrError
from diffcorr.segmentation.base import MaskPrediction, SegmentationMethod
from diffcorr.segmentation.word_labels import WordLabels
from diffcorr.types import SegmentationSample


class SegmentationModule(LightningModule):
    """Predicts masks batch by batch; `Trainer.predict` over a loader with ``collate_fn=list``.

    Masks are predicted to be stored and scored afterwards (`diffcorr.metrics.score_masks`), so that no
    sampler that repeats images can enter a score.

    Args:
        method: how to segment.
        backbone: frozen model, for methods that need one.
        num_segments: image id -> number of segments, for methods that do not find it themselves.

    Raises:
        BackboneError: the method needs a backbone and none was given.
        DiffcorrError: the method needs numbers of segments and none were given.
    """

    def __init__(
        self,
        method: SegmentationMethod,
        backbone: Backbone | None = None,
        num_segments: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__()
        if method.needs_backbone and backbone is None:
            raise BackboneError(f"{method.name} needs a backbone; none was given")
        if method.counts_from != "image" and num_segments is None:
            raise DiffcorrError(f"{method.name} needs the number of segments of every image; none was given")
        self.method = method
        self.backbone = backbone
        self.num_segments = num_segments

    def predict_step(self, batch: list[SegmentationSample], batch_idx: int = 0) -> list[MaskPrediction]:
        """One mask for each sample, at its image's size."""
        num_segments = None
        if self.num_segments is not None:
            if missing := [s["image_id"] for s in batch if s["image_id"] not in self.num_segments]:
                raise DiffcorrError(f"no number of segments for image {missing[0]!r}; segment it first")
            num_segments = [self.num_segments[sample["image_id"]] for sample in batch]
        images = [sample["image"] for sample in batch]
        segment = self.method.segment
        if isinstance(self.method, WordLabels):
            captions = [str(sample["tags"].get("caption", "")) for sample in batch]
            segment = partial(self.method.segment, captions=captions)
        masks = segment(images, backbone=self.backbone, num_segments=num_segments)
        return [MaskPrediction(sample["image_id"], mask) for sample, mask in zip(batch, masks, strict=True)]
