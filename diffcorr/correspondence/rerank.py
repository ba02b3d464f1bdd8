"""Prompt fitting weighed by feature similarity: two views of one frozen model, or of two."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from diffcorr.attention.base import AttentionVariant
from diffcorr.backbones.base import Backbone
from diffcorr.correspondence.config import FitConfig, TransferConfig
from diffcorr.correspondence.features.base import FeatureSource, cosine_maps, sample
from diffcorr.correspondence.predictor import Embeddings, PromptFit
from diffcorr.correspondence.prompt_fit import OnProgress
from diffcorr.correspondence.transfer import TransferResult, sharpness
from diffcorr.data.geometry import frame, image_size
from diffcorr.errors import DiffcorrError
from diffcorr.types import Query, UInt8Image


class PromptFitRerank(PromptFit):
    """The target pixel where heatmap^(1 - w) x similarity^w is largest.

    The heatmap is prompt fitting's, the mean over layers; the similarity is the cosine of the features there
    with those at the query, negative ones 0. At w = 0 this is prompt fitting, at w = 1 the nearest neighbour.
    Embeddings are those of `PromptFit` with the same ``fit``, so that one store serves both.

    The combination is this package's own. Fused features rest on the same ground: the two err differently
    (Zhang et al., NeurIPS 2023).

    Args:
        backbone: frozen.
        features: where features come from; not from a prompt that names the category.
        variant, fit, transfer, embeddings, name, read_variant: see `PromptFit`.
        weight: w, 0..1.

    Raises:
        DiffcorrError: a weight out of range, or features that depend on the category.
    """

    def __init__(
        self,
        backbone: Backbone,
        features: FeatureSource,
        variant: AttentionVariant | None = None,
        fit: FitConfig | None = None,
        transfer: TransferConfig | None = None,
        embeddings: Embeddings | None = None,
        name: str = "prompt_fit_rerank",
        weight: float = 0.5,
        read_variant: AttentionVariant | None = None,
    ) -> None:
        super().__init__(backbone, variant, fit, transfer, embeddings, name, read_variant)
        if not 0 <= weight <= 1:
            raise DiffcorrError(f"expected a weight of the similarity in 0..1, found {weight}")
        if features.uses_category:
            raise DiffcorrError(
                "expected features whose prompt is the same for all categories, since a query names none, "
                f"found {features.prompt!r}: leave {{category}} out"
            )
        self.features, self.weight = features, weight
        self._wanted: dict[str, Tensor] = {}  # of each query its feature (D,)

    def fit(
        self,
        queries: Sequence[Query],
        images: Mapping[str, UInt8Image],
        progress: OnProgress | None = None,
    ) -> None:
        """Fit what is missing, and remember the features at the queries."""
        super().fit(queries, images, progress)
        for query in queries:
            if query.id not in self._wanted:
                image = images[query.image_id]
                features_Dhw = self.features(image, f"{query.dataset}/{query.image_id}")
                place = torch.tensor([query.point]) / torch.tensor(image_size(image))
                self._wanted[query.id] = sample(features_Dhw, place.to(features_Dhw))[0]

    def locate(
        self, queries: Sequence[Query], target: UInt8Image, target_id: str, heatmaps: bool = False
    ) -> list[TransferResult]:
        """Read fitted queries in a target image; a result's heatmap is the product.

        Args:
            queries: all of them seen by `fit` of this object.
            target: RGB image of any size.
            target_id: its identity, from which the random numbers of the reading derive.
            heatmaps: keep the maps.
        """
        found = super().locate(queries, target, target_id, heatmaps=True)
        if not found:
            return []
        side = self.transfer_config.side or self.backbone.image_size
        geometry = frame(image_size(target), side, self.transfer_config.frame)
        left, top, right, bottom = geometry.destination
        features_Dhw = self.features(target, target_id)
        wanted_QD = torch.stack([self._wanted[query.id] for query in queries])
        cosines_QHW = cosine_maps(wanted_QD, features_Dhw, bottom - top, right - left)

        def weighed(result: TransferResult, cosines_HW: Tensor) -> TransferResult:
            assert result.heatmap is not None
            heatmap_HW = result.heatmap[top:bottom, left:right].to(cosines_HW).clamp(min=0)
            score = combine(heatmap_HW, cosines_HW, self.weight)
            row, column = divmod(int(score.argmax()), right - left)
            place = torch.tensor([left + column + 0.5, top + row + 0.5], dtype=torch.float64)
            x, y = geometry.inverse(place).tolist()
            whole = torch.zeros_like(result.heatmap)
            whole[top:bottom, left:right] = score.to(whole)
            return dataclasses.replace(
                result,
                point=(x, y),
                confidence=float(score[row, column].clamp(0, 1)),
                sharpness=sharpness(score, (column + 0.5, row + 0.5), side),
                heatmap=whole if heatmaps else None,
                layer_maps=result.layer_maps if heatmaps else {},
            )

        return [weighed(result, cosines) for result, cosines in zip(found, cosines_QHW, strict=True)]


def combine(heatmap_HW: Tensor, cosines_HW: Tensor, weight: float) -> Tensor:
    """heatmap^(1 - weight) x max(cosine, 0)^weight, of the heatmap's shape, in [0, 1] where it is."""
    return heatmap_HW ** (1 - weight) * cosines_HW.clamp(min=0) ** weight
