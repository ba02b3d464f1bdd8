"""Scoring protocols by name: everything beside the predictions that decides a number.

A new protocol is one entry in `POINT_PROTOCOLS` or `MASK_PROTOCOLS`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from diffcorr.errors import ProtocolError, UnknownNameError
from diffcorr.metrics.functional.segmentation import Accounting
from diffcorr.types import Pair


@dataclass(frozen=True)
class PointProtocol:
    """How predicted points are scored.

    Attributes:
        name: what stands beside every number.
        threshold: the length that alpha multiplies, a key of `THRESHOLDS`.
        average: ``image``, the mean over pairs of the fraction correct; ``point``, all points pooled.
        alphas: the multiples that are reported.
        inclusive: whether a point at exactly the threshold is correct (``<=``) or not (``<``).
    """

    name: str
    threshold: str = "target_bbox"
    average: Literal["image", "point"] = "image"
    alphas: tuple[float, ...] = (0.10, 0.05)
    inclusive: bool = True

    def threshold_length(self, pair: Pair) -> float:
        """Length in original pixels of the target that alpha multiplies.

        Raises:
            ProtocolError: the pair has no positive such length.
        """
        length = THRESHOLDS[self.threshold](pair)
        if not length > 0:
            raise ProtocolError(
                f"protocol {self.name!r} needs a positive {self.threshold} length, pair {pair.pair_id!r} has "
                f"{length}; mend the annotation or leave the pair out"
            )
        return length


def _target_bbox(pair: Pair) -> float:
    x_min, y_min, x_max, y_max = pair.target_bbox
    return max(x_max - x_min, y_max - y_min)


THRESHOLDS: dict[str, Callable[[Pair], float]] = {"target_bbox": _target_bbox}


@dataclass(frozen=True)
class MaskProtocol:
    """How predicted masks are scored; segments are matched to classes image by image.

    Attributes:
        name: what stands beside every number.
        accounting: how pixels are counted, see `class_counts`.
    """

    name: str
    accounting: Accounting = "present"


POINT_PROTOCOLS = {
    protocol.name: protocol
    for protocol in (PointProtocol("standard"), PointProtocol("per_point", average="point"))
}

# `diffseg_512` is the published one where masks and labels are the centre crop of the image at 512 x 512
MASK_PROTOCOLS = {
    protocol.name: protocol
    for protocol in (MaskProtocol("per_image"), MaskProtocol("diffseg_512", accounting="diffseg"))
}


def point_protocol(name: str) -> PointProtocol:
    """The point protocol of that name.

    Raises:
        UnknownNameError: there is none.
    """
    if name not in POINT_PROTOCOLS:
        raise UnknownNameError("point protocol", name, POINT_PROTOCOLS)
    return POINT_PROTOCOLS[name]


def mask_protocol(name: str) -> MaskProtocol:
    """The mask protocol of that name.

    Raises:
        UnknownNameError: there is none.
    """
    if name not in MASK_PROTOCOLS:
        raise UnknownNameError("mask protocol", name, MASK_PROTOCOLS)
    return MASK_PROTOCOLS[name]
