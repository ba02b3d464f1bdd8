"""Scoring protocols by name: everything beside the predictions that decides a number.

A new protocol is one entry in `POINT_PROTOCOLS` or `MASK_PROTOCOLS`. docs/protocols.md tells of each
where it comes from and what is not known about it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from diffcorr.errors import ProtocolError, UnknownNameError
from diffcorr.metrics.columns import Floats, PairColumns, pair_columns
from diffcorr.metrics.frames import FRAMES
from diffcorr.metrics.functional.pck import AVERAGES, Average
from diffcorr.metrics.functional.segmentation import ACCOUNTINGS, Accounting
from diffcorr.metrics.thresholds import SPACES, THRESHOLDS
from diffcorr.types import Pair


@dataclass(frozen=True)
class PointProtocol:
    """How predicted points are scored.

    Attributes:
        name: what stands beside every number.
        threshold: the length that alpha multiplies, a key of `THRESHOLDS`.
        average: ``image``, the mean over pairs of the fraction correct; ``point``, all points pooled;
            ``category_image`` and ``category_point``, one of these within each category, then the plain
            mean over categories.
        alphas: the multiples that are reported.
        inclusive: whether a point at exactly the threshold is correct (``<=``) or not (``<``).
        space: where points, truth and threshold are measured, a key of `SPACES`.

    Raises:
        UnknownNameError: no such threshold, average or space.
        ProtocolError: no name, or alphas that are not positive and distinct.
    """

    name: str
    threshold: str = "target_bbox"
    average: Average = "image"
    alphas: tuple[float, ...] = (0.10, 0.05)
    inclusive: bool = True
    space: str = "original"

    def __post_init__(self) -> None:
        known: tuple[tuple[str, str, Iterable[str]], ...] = (
            ("threshold", self.threshold, THRESHOLDS),
            ("average", self.average, AVERAGES),
            ("space", self.space, SPACES),
        )
        for kind, value, names in known:
            if value not in names:
                raise UnknownNameError(f"{kind} of a point protocol", value, names)
        alphas = tuple(float(alpha) for alpha in self.alphas)
        names_of_alphas = {metric_name(alpha) for alpha in alphas}
        wrong = any(not (math.isfinite(alpha) and alpha > 0) for alpha in alphas)
        if not self.name or wrong or not alphas or len(names_of_alphas) != len(alphas):
            raise ProtocolError(
                "expected a protocol with a name and positive, distinct alphas, found "
                f"{self.name!r} with {alphas}"
            )
        object.__setattr__(self, "alphas", alphas)

    def threshold_lengths(self, columns: PairColumns) -> Floats:
        """(P,) lengths that alpha multiplies, in pixels of the protocol's space.

        Raises:
            ProtocolError: a pair has no positive such length.
        """
        with np.errstate(divide="ignore", invalid="ignore"):  # a size that is not known ends up below
            lengths = THRESHOLDS[self.threshold](columns, SPACES[self.space])
        for place in np.flatnonzero(~(np.isfinite(lengths) & (lengths > 0)))[:1]:
            raise ProtocolError(
                f"protocol {self.name!r} needs a positive {self.threshold} length, pair "
                f"{columns.pairs[place].pair_id!r} has {lengths[place]:g}; mend the annotation or leave the "
                "pair out"
            )
        return lengths

    def threshold_length(self, pair: Pair) -> float:
        """The same of one pair; in original pixels of the target where that is the space."""
        return float(self.threshold_lengths(pair_columns([pair]))[0])

    def scales(self, columns: PairColumns) -> Floats:
        """(P, 2) pixels of the protocol's space for one original pixel of the target.

        Raises:
            ProtocolError: the space needs the size of the target image, and a pair has none.
        """
        unknown = ~(columns.target_size > 0).all(1)
        if self.space != "original" and unknown.any():
            raise ProtocolError(
                f"protocol {self.name!r} measures in {self.space} and needs the size of each target image, "
                f"pair {columns.pairs[int(unknown.argmax())].pair_id!r} has none; read the images' sizes"
            )
        return SPACES[self.space].scale(columns.target_size)

    def radii(self, pair: Pair, alpha: float) -> tuple[float, float]:
        """Half axes of the ellipse that is correct, along x and y in original pixels of the target."""
        columns = pair_columns([pair])
        x, y = alpha * float(self.threshold_lengths(columns)[0]) / self.scales(columns)[0]
        return float(x), float(y)


def metric_name(alpha: float) -> str:
    """``pck@0.10``; more digits where two do not tell it."""
    return f"pck@{alpha:.2f}" if float(f"{alpha:.2f}") == alpha else f"pck@{alpha:g}"


@dataclass(frozen=True)
class MaskProtocol:
    """How predicted masks are scored: segments are matched to classes one to one, then pixels are counted.

    Attributes:
        name: what stands beside every number.
        accounting: how segments are matched: ``present``, image by image to the classes that occur;
            ``diffseg``, image by image to all classes; ``global``, once for the whole data set; ``named``,
            not at all, ids are classes. See `match_segments`.
        frame: which pixels are compared, a key of `FRAMES`.
        merge_background: whether segments that are no object become one, and ignored pixels background, in
            data sets that have a background, see `merge_background`.

    Raises:
        UnknownNameError: no such accounting or frame.
        ProtocolError: no name, or a background to merge under another accounting than ``diffseg``.
    """

    name: str
    accounting: Accounting = "present"
    frame: str = "whole"
    merge_background: bool = False

    def __post_init__(self) -> None:
        known: tuple[tuple[str, str, Iterable[str]], ...] = (
            ("accounting", self.accounting, ACCOUNTINGS),
            ("frame", self.frame, FRAMES),
        )
        for kind, value, names in known:
            if value not in names:
                raise UnknownNameError(f"{kind} of a mask protocol", value, names)
        if not self.name or (self.merge_background and self.accounting != "diffseg"):
            raise ProtocolError(
                "expected a protocol with a name, and merge_background only with the accounting 'diffseg', "
                f"found {self.name!r} with {self.accounting!r}"
            )


# What each entry leaves out is the default of `PointProtocol`: longer side of the target's box, per image,
# original pixels, <=.
POINT_PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        # most papers since 2020
        PointProtocol("standard"),
        # pairs with many keypoints weigh more
        PointProtocol("per_point", average="point"),
        # rare categories weigh as much as frequent ones, points pooled within each
        PointProtocol("per_category", average="category_point"),
        # the program of DIFT (Tang et al., NeurIPS 2023); alpha 0.10 alone
        PointProtocol("dift", average="point", alphas=(0.10,)),
        # the program of SD+DINO (Zhang et al., NeurIPS 2023): strictly below, mean over categories
        PointProtocol(
            "sd_dino",
            average="category_point",
            alphas=(0.10, 0.05, 0.01),
            inclusive=False,
            space="letterbox_840",
        ),
        # the program of GeoAware-SC (Zhang et al., CVPR 2024): strictly below, mean over images
        PointProtocol("geoaware", alphas=(0.10, 0.05, 0.01), inclusive=False, space="letterbox_840"),
        # the program of Hedlin et al. (NeurIPS 2023), which has a length of its own for each data set
        PointProtocol("legacy_hedlin_spair", "source_bbox", space="stretched_512"),
        PointProtocol("legacy_hedlin_willow", "padded_extent", space="stretched_512"),
        PointProtocol("legacy_hedlin_cub", "target_bbox_by_x", space="stretched_512"),
        # PF-Pascal as it is usually reported
        PointProtocol("pf_pascal", "image_side", alphas=(0.10, 0.05, 0.15)),
    )
}

MASK_PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        # does not depend on how segments are numbered; unmatched segments are errors
        MaskProtocol("per_image"),
        # one match for the data set, for ids that agree across images (PiCIE, STEGO)
        MaskProtocol("global", accounting="global"),
        # the program of DiffSeg (Tian et al., CVPR 2024), and its smaller resolution
        MaskProtocol("diffseg_512", accounting="diffseg", frame="square_512"),
        MaskProtocol("diffseg_320", accounting="diffseg", frame="square_320"),
        # the program of DiffCut (Couairon et al., NeurIPS 2024)
        MaskProtocol("diffcut_128", accounting="diffseg", frame="diffcut_128", merge_background=True),
        # no match: the id of a segment is its class, for methods that name what they find
        MaskProtocol("words", accounting="named"),
    )
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
