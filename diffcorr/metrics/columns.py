"""A list of pairs as columns: what scoring needs of it, one array for each thing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from diffcorr.errors import ProtocolError
from diffcorr.types import Pair

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PairColumns:
    """P pairs and the N keypoints that they have together, in the order of the list.

    Attributes:
        pairs: the pairs themselves.
        sizes: (P,) keypoints of each pair, one or more.
        owner: (N,) place of the pair that a keypoint belongs to.
        target: (N, 2) true points (x, y) in original pixels of the target.
        source_bbox: (P, 4) boxes in original pixels of the source.
        target_bbox: (P, 4) boxes in original pixels of the target.
        source_size: (P, 2) width and height of the source.
        target_size: (P, 2) width and height of the target.
        categories: names, sorted, so that a list gives the same numbers in every process.
        category: (P,) place of each pair's category among them.
    """

    pairs: tuple[Pair, ...]
    sizes: Ints
    owner: Ints
    target: Floats
    source_bbox: Floats
    target_bbox: Floats
    source_size: Floats
    target_size: Floats
    categories: tuple[str, ...]
    category: Ints

    @property
    def starts(self) -> Ints:
        """(P,) place of the first keypoint of each pair."""
        return np.cumsum(self.sizes) - self.sizes


def pair_columns(pairs: Sequence[Pair]) -> PairColumns:
    """The columns of a list of pairs.

    Raises:
        ProtocolError: there is no pair; a pair is there twice, has no keypoint, the same one twice, or
            another number of target points.
    """
    if not pairs:
        raise ProtocolError("expected one or more pairs to score, found none")
    seen: set[str] = set()
    for pair in pairs:
        if pair.pair_id in seen:
            raise ProtocolError(
                f"expected each pair once, found {pair.pair_id!r} twice; it would count twice"
            )
        seen.add(pair.pair_id)
        count = len(pair.keypoints)
        if count == 0 or len(pair.target_points) != count or len(set(pair.keypoints)) != count:
            raise ProtocolError(
                f"expected one target point for each keypoint of pair {pair.pair_id!r}, every keypoint once "
                f"and at least one, found {count} keypoints and {len(pair.target_points)} points"
            )
    categories = tuple(sorted({pair.category for pair in pairs}))
    places = {name: place for place, name in enumerate(categories)}
    sizes = np.array([len(pair.keypoints) for pair in pairs], dtype=np.int64)

    def floats(values: list[object]) -> Floats:
        return np.array(values, dtype=np.float64)

    return PairColumns(
        pairs=tuple(pairs),
        sizes=sizes,
        owner=np.repeat(np.arange(len(pairs)), sizes),
        target=floats([point for pair in pairs for point in pair.target_points]),
        source_bbox=floats([pair.source_bbox for pair in pairs]),
        target_bbox=floats([pair.target_bbox for pair in pairs]),
        source_size=floats([pair.source_size for pair in pairs]),
        target_size=floats([pair.target_size for pair in pairs]),
        categories=categories,
        category=np.array([places[pair.category] for pair in pairs], dtype=np.int64),
    )
