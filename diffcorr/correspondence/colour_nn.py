"""Nearest neighbour on patches of raw colour: what can be had without any model."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from diffcorr.correspondence.base import check_pair
from diffcorr.data.geometry import frame, image_size, image_to_tensor
from diffcorr.types import Pair, PointPrediction, UInt8Image


class ColourNN:
    """The target pixel whose surrounding colours differ least from the query's.

    Args:
        side: both images are stretched to this square, in pixels.
        patch: side of a patch in these pixels, odd.
        seed: unused, nothing is random.
    """

    name = "colour_nn"

    def __init__(self, side: int = 64, patch: int = 7, seed: int = 0) -> None:
        self.side, self.patch, self.seed = side, patch, seed

    def predict(self, pair: Pair, source: UInt8Image, target: UInt8Image) -> list[PointPrediction]:
        """Nearest neighbours; confidence = 1 - root mean squared difference of colours in [0, 1]."""
        check_pair(pair, source, target)
        to_source, to_target = (frame(image_size(image), self.side) for image in (source, target))
        patches_source = self._patches(image_to_tensor(source, to_source))
        patches_target = self._patches(image_to_tensor(target, to_target))
        predictions = []
        for keypoint, query in zip(pair.keypoints, pair.queries(), strict=True):
            x, y = to_source.forward(torch.tensor(query.point, dtype=torch.float64)).tolist()
            column, row = (min(self.side - 1, int(v)) for v in (x, y))
            wanted = patches_source[row * self.side + column]
            error, index = (patches_target - wanted).square().mean(1).min(0)
            place = torch.tensor(
                [int(index) % self.side + 0.5, int(index) // self.side + 0.5], dtype=torch.float64
            )
            found_x, found_y = to_target.inverse(place).tolist()
            confidence = 1 - float(error) ** 0.5 / 2  # colours span [-1, 1]
            predictions.append(
                PointPrediction(pair.pair_id, keypoint, query.id, found_x, found_y, confidence)
            )
        return predictions

    def _patches(self, image_CHW: Tensor) -> Tensor:
        """Colours around every pixel (side^2, 3 patch^2), the border repeated outwards."""
        reach = self.patch // 2
        padded = F.pad(image_CHW[None], (reach,) * 4, mode="replicate")
        return F.unfold(padded, self.patch)[0].T
