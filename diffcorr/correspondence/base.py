"""What every correspondence method is: pixels of the source asked for, points in the target given."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from diffcorr.attention.base import AttentionVariant
from diffcorr.backbones.base import Backbone
from diffcorr.data.geometry import check_inside, image_size
from diffcorr.types import Pair, PointPrediction, UInt8Image


@runtime_checkable
class CorrespondenceMethod(Protocol):
    """Finds the keypoints of a source image in a target image. One file and one config each.

    Predictions depend on the method's seed and on the pair, never on what was predicted before.
    """

    name: str

    def predict(self, pair: Pair, source: UInt8Image, target: UInt8Image) -> list[PointPrediction]:
        """One prediction for each of ``pair.keypoints``, in that order.

        Points are (x, y) in pixels of the original target. A confidence lies in [0, 1] and may be
        compared within one method only.
        """


def build_method(
    factory: Callable[..., CorrespondenceMethod], backbone: Backbone, variant: AttentionVariant
) -> CorrespondenceMethod:
    """Give a method (a class, or what a ``_partial_`` config makes) the model only if it asks for it.

    Parts of the method that are ``_partial_`` themselves, such as its features, are built likewise.
    """
    offered = {"backbone": backbone, "variant": variant}

    def build(part: Callable[..., Any]) -> Any:
        wanted = inspect.signature(part).parameters
        given = getattr(part, "keywords", {})
        inner = {key: build(value) for key, value in given.items() if isinstance(value, functools.partial)}
        filled = {key: value for key, value in offered.items() if key in wanted and key not in given}
        return part(**filled, **inner)

    method: CorrespondenceMethod = build(factory)
    return method


def check_pair(pair: Pair, source: UInt8Image, target: UInt8Image) -> None:
    """ImageError unless both are RGB images and the source shows every keypoint."""
    image_size(target)
    size = image_size(source)
    for query in pair.queries():
        check_inside(query.point, size, f"query {query.id}")
