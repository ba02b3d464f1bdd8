"""Scores of parts and of other alphas, as tidy rows: one number in each, with its protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffcorr.errors import ProtocolError
from diffcorr.metrics.functional.pck import average_pairs, distances, sum_per_pair
from diffcorr.metrics.groupings import groupings
from diffcorr.metrics.matching import Matched
from diffcorr.metrics.protocols import PointProtocol, metric_name, point_protocol
from diffcorr.metrics.scoring import correct_of_points


@dataclass(frozen=True)
class Row:
    """One score of a part of the keypoints.

    Attributes:
        protocol: name of the protocol; its average is taken over the part.
        by: what the keypoints were divided by.
        group: the part, in that division.
        metric: such as ``pck@0.10``.
        value: in percent.
        num_pairs: pairs with a keypoint in the part.
        num_points: keypoints in the part.
    """

    protocol: str
    by: str
    group: str
    metric: str
    value: float
    num_pairs: int
    num_points: int

    def to_dict(self) -> dict[str, Any]:
        """A flat dictionary."""
        return asdict(self)


def breakdown(matched: Matched, protocol: str | PointProtocol, by: str) -> list[Row]:
    """The score of each part of the keypoints.

    Divided by ``category``, ``keypoint``, ``part``, ``geometry``, ``visibility``, ``difficulty`` or the name
    of a tag.
    A part is scored as if there were no other keypoints: averaged over images, that is the mean over
    the pairs that have a keypoint in the part of the fraction correct of those. Parts are sorted by name.

    Raises:
        UnknownNameError: no such protocol, grouping or tag.
        ProtocolError: the pairs cannot be divided so, or not be scored under the protocol.
    """
    protocol = point_protocol(protocol) if isinstance(protocol, str) else protocol
    correct_AN = correct_of_points(matched, protocol)
    rows = []
    for name, labels in groupings(matched.columns, by).items():
        parts = sorted({label for label in labels if label is not None})
        number = {label: place for place, label in enumerate(parts)}
        part_of_N = np.array([-1 if label is None else number[label] for label in labels])
        for place, part in enumerate(parts):
            kept = matched.scored & (part_of_N == place)
            if not kept.any():
                continue
            scores = _average(matched, protocol, correct_AN.T.double(), kept)
            size = (len(np.unique(matched.columns.owner[kept])), int(kept.sum()))
            rows += [
                Row(protocol.name, name, part, metric_name(alpha), 100 * float(score), *size)
                for alpha, score in zip(protocol.alphas, scores, strict=True)
            ]
    return rows


def breakdowns_of_pairs(matched: Matched, protocol: str | PointProtocol) -> list[Row]:
    """The score of every category and of every value of every tag, sorted by division and part."""
    tags = {tag for pair in matched.columns.pairs for tag in pair.tags}
    return [row for by in sorted({"category", *tags}) for row in breakdown(matched, protocol, by)]


@dataclass(frozen=True)
class CurvePoint:
    """PCK in percent at one alpha, under a protocol."""

    protocol: str
    alpha: float
    value: float


def pck_curve(
    matched: Matched, protocol: str | PointProtocol, alphas: Sequence[float] | None = None
) -> list[CurvePoint]:
    """PCK over alpha; by default 40 steps up to 0.2.

    Raises:
        UnknownNameError: no such protocol.
        ProtocolError: a pair cannot be scored under the protocol.
    """
    protocol = point_protocol(protocol) if isinstance(protocol, str) else protocol
    steps = [n / 200 for n in range(1, 41)] if alphas is None else [float(alpha) for alpha in alphas]
    correct_AN = correct_of_points(matched, protocol, steps)
    scores = _average(matched, protocol, correct_AN.T.double(), matched.scored)
    return [CurvePoint(protocol.name, a, 100 * float(s)) for a, s in zip(steps, scores, strict=True)]


def curve_area(matched: Matched, protocol: str | PointProtocol, max_alpha: float = 0.2) -> float:
    """Mean of PCK over alpha in 0..max_alpha, in percent: the exact area under the curve.

    A point counts from the alpha that its error reaches on, so it adds 1 - error / max_alpha, where the
    error is in threshold lengths, and nothing beyond.

    Raises:
        UnknownNameError: no such protocol.
        ProtocolError: as `pck_curve`, or ``max_alpha`` is not positive.
    """
    if not max_alpha > 0:
        raise ProtocolError(f"expected a positive largest alpha, found {max_alpha}")
    protocol = point_protocol(protocol) if isinstance(protocol, str) else protocol
    columns = matched.columns
    owner = torch.from_numpy(columns.owner)
    points, target = torch.from_numpy(matched.points), torch.from_numpy(columns.target)
    error = distances(points, target, torch.from_numpy(protocol.scales(columns))[owner])
    error = error / torch.from_numpy(protocol.threshold_lengths(columns))[owner]
    share = (1 - error / max_alpha).clamp_min(0).nan_to_num(0.0)
    return 100 * float(_average(matched, protocol, share[:, None], matched.scored)[0])


def _average(matched: Matched, protocol: PointProtocol, values_NA: Tensor, kept: Any) -> Tensor:
    """The protocol's average of points' values over the points that are kept, (A,)."""
    columns = matched.columns
    owner = torch.from_numpy(columns.owner[kept])
    num_pairs = len(columns.pairs)
    sums = sum_per_pair(values_NA[torch.from_numpy(kept)], owner, num_pairs)
    total = torch.bincount(owner, minlength=num_pairs)
    return average_pairs(sums, total, torch.from_numpy(columns.category), protocol.average)
