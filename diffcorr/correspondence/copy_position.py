"""The same relative position in the target image: what layout alone gives away."""

from __future__ import annotations

from diffcorr.correspondence.base import check_pair
from diffcorr.data.geometry import image_size
from diffcorr.types import Pair, PointPrediction, UInt8Image


class CopyPosition:
    """Source point as a fraction of its image, in the target image.

    Args:
        seed: unused, nothing is random.
    """

    name = "copy_position"

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def predict(self, pair: Pair, source: UInt8Image, target: UInt8Image) -> list[PointPrediction]:
        """Copied positions; confidence 1, as all are alike."""
        check_pair(pair, source, target)
        (from_width, from_height), (width, height) = image_size(source), image_size(target)
        return [
            PointPrediction(
                pair.pair_id,
                name,
                q.id,
                q.point[0] / from_width * width,
                q.point[1] / from_height * height,
                1.0,
            )
            for name, q in zip(pair.keypoints, pair.queries(), strict=True)
        ]
