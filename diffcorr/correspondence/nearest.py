"""Nearest neighbour on the features of any source."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from diffcorr.correspondence.base import check_pair
from diffcorr.correspondence.features.base import FeatureSource, cosine_maps, sample
from diffcorr.data.geometry import frame, image_size
from diffcorr.errors import UnknownNameError
from diffcorr.types import Pair, PointPrediction, UInt8Image


class NearestNeighbour:
    """The place in the target whose feature has the largest cosine with the query's.

    Args:
        features: where features come from.
        name: under which predictions are stored.
        readout: ``pixel``: features are interpolated to every pixel of the square that their source sees
            (DIFT); ``cell``: the query takes the feature of the cell that it lies in, and the answer is the
            centre of a cell (Amir et al. 2022, SD+DINO).

    Raises:
        UnknownNameError: no such read-out.
    """

    def __init__(
        self, features: FeatureSource, name: str = "nearest", readout: Literal["pixel", "cell"] = "pixel"
    ) -> None:
        if readout not in ("pixel", "cell"):
            raise UnknownNameError("readout", readout, ["pixel", "cell"])
        self.features, self.name, self.readout = features, name, readout

    def predict(self, pair: Pair, source: UInt8Image, target: UInt8Image) -> list[PointPrediction]:
        """Nearest neighbours; confidence = cosine, negative ones 0."""
        check_pair(pair, source, target)
        queries = pair.queries()
        if not queries:
            return []
        source_Dhw = self.features(source, f"{pair.dataset}/{pair.source_id}", pair.category)
        target_Dhw = self.features(target, f"{pair.dataset}/{pair.target_id}", pair.category)
        side = self.features.side
        to_source, to_target = (frame(image_size(image), side) for image in (source, target))
        points = to_source.forward(torch.tensor([q.point for q in queries], dtype=torch.float64).view(-1, 2))
        places = points.to(source_Dhw) / side
        if self.readout == "cell":
            places = _centres(places, source_Dhw)
        height, width = (side, side) if self.readout == "pixel" else target_Dhw.shape[1:]
        maps = cosine_maps(sample(source_Dhw, places), target_Dhw, height, width)
        cosines, indices = maps.flatten(1).max(1)
        found = [
            ((i % width + 0.5) * (side / width), (i // width + 0.5) * (side / height))
            for i in indices.tolist()
        ]
        original = to_target.inverse(torch.tensor(found, dtype=torch.float64).view(-1, 2)).tolist()
        return [
            PointPrediction(pair.pair_id, keypoint, query.id, x, y, min(1.0, max(0.0, cosine)))
            for keypoint, query, (x, y), cosine in zip(
                pair.keypoints, queries, original, cosines.tolist(), strict=True
            )
        ]


def _centres(places_N2: Tensor, features_Dhw: Tensor) -> Tensor:
    """Centres of the cells that places lie in, both as fractions of the image."""
    size = places_N2.new_tensor([features_Dhw.shape[2], features_Dhw.shape[1]])
    return ((places_N2 * size).floor().clamp(min=0).minimum(size - 1) + 0.5) / size
