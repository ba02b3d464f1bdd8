"""A random point of the target image: what knowing nothing gives."""

from __future__ import annotations

from hashlib import sha256

from diffcorr.correspondence.base import check_pair
from diffcorr.data.geometry import image_size
from diffcorr.types import Pair, PointPrediction, UInt8Image


class Chance:
    """Uniform over the target image.

    Args:
        seed: of the points, together with the query and the pair.
    """

    name = "chance"

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed

    def predict(self, pair: Pair, source: UInt8Image, target: UInt8Image) -> list[PointPrediction]:
        """Random points; confidence 0, as none deserves more."""
        check_pair(pair, source, target)
        width, height = image_size(target)
        predictions = []
        for keypoint, query in zip(pair.keypoints, pair.queries(), strict=True):
            digest = sha256(f"chance\n{self.seed}\n{query.id}\n{pair.pair_id}".encode()).digest()
            x, y = (int.from_bytes(part, "big") / 2**64 for part in (digest[:8], digest[8:16]))
            predictions.append(PointPrediction(pair.pair_id, keypoint, query.id, x * width, y * height, 0.0))
        return predictions
