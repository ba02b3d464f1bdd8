"""What data sets of annotated image pairs on disk have in common.

Keypoints and boxes are used as stored, in pixels of the original image. `read_image` turns pictures
upright by their EXIF flag, so annotations are taken to mean the upright picture, as every viewer shows
it, and sizes are those of the upright picture. The published data sets carry no such flags; for a file
that does, ``diffcorr data check`` says so, since points that a program marked on the unturned pixels
would then lie elsewhere.
"""

from __future__ import annotations

import logging
import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from diffcorr.data.counts import check_count
from diffcorr.data.download import Download
from diffcorr.data.images import read_image, upright_size
from diffcorr.errors import DataError, UnknownNameError
from diffcorr.types import Box, Pair, Point, Size, UInt8Image

log = logging.getLogger(__name__)
UNKNOWN_SIZE = (0, 0)


@dataclass(frozen=True)
class About:
    """What is known of a published data set, for ``diffcorr data list`` and ``diffcorr data check``.

    Attributes:
        title: its name in print.
        source: where to get it, and what to do with it.
        licence: on what terms.
        size: of the download.
        layout: the folder that ``root`` names, or its parent.
        citation: the paper.
        num_images: of the complete data set; ``None`` where there is no such number.
        num_pairs: of each split with the default options.
        downloads: files for ``diffcorr data download``; none where the host wants a person.
    """

    title: str
    source: str
    licence: str
    size: str
    layout: str
    citation: str
    num_images: int | None = None
    num_pairs: Mapping[str, int] = field(default_factory=dict)
    downloads: tuple[Download, ...] = ()


@dataclass(frozen=True)
class View:
    """One image of a pair as annotated.

    Attributes:
        image_id: of the image.
        points: visible keypoints by name.
        bbox: of the object; ``None`` where the data set has none.
        size: of the upright image; ``None`` if only the file tells.
    """

    image_id: str
    points: Mapping[str, Point]
    bbox: Box | None = None
    size: Size | None = None


@dataclass(frozen=True)
class Candidate:
    """A pair before its keypoints are read. ``row`` is what the data set needs to read them."""

    pair_id: str
    category: str
    row: Any


class PairFiles(ABC):
    """Pairs over image files; a data set says how its index and its annotations are read.

    Args:
        root: folder of the data set, or its parent.
        split: one of ``splits``.
        categories: only these (None: all).
        num_pairs: so many (None: all), taken from the categories in turn, so that a few show them all.
        read_sizes: whether sizes that no annotation gives are read from the headers of the images; without,
            they are (0, 0), and no image has to be there.

    Attributes:
        files: path of every image of the index, by image id.
        skipped: how many pairs were left out, by reason.

    Raises:
        DataError: no such folder, another layout, or an annotation that cannot be read.
        ImageError: an image that has to be asked for its size cannot be read.
        UnknownNameError: a split or category that there is not.
    """

    name: str = ""
    splits: ClassVar[tuple[str, ...]] = ("test",)
    about: ClassVar[About]

    def __init__(
        self,
        root: str | Path,
        split: str = "test",
        categories: Sequence[str] | str | None = None,
        num_pairs: int | None = None,
        read_sizes: bool = True,
    ) -> None:
        if split not in self.splits:
            raise UnknownNameError(f"split of {self.name}", split, self.splits)
        check_count("num_pairs", num_pairs)
        self.root = Path(root).expanduser()
        self.split, self.read_sizes = split, read_sizes
        self.files: dict[str, Path] = {}
        self.skipped: Counter[str] = Counter()
        self._sizes: dict[str, Size] = {}
        # points, boxes and names recur in many pairs: one object each keeps 50,000 pairs small
        self._shared: dict[Any, Any] = {}
        candidates = _unique(self._candidates())
        self._pairs = self._select(self._of(candidates, categories), num_pairs)
        self._shared.clear()
        if self.skipped:
            log.info("%s (%s): left out %s", self.name, split, dict(self.skipped))

    @abstractmethod
    def _candidates(self) -> Iterator[Candidate]:
        """All pairs of the split in their fixed order, after what has to be found is found."""

    @abstractmethod
    def _views(self, candidate: Candidate) -> tuple[View, View, Mapping[str, object]]:
        """Source, target and tags of a pair. Fills ``files`` for both images."""

    @classmethod
    @abstractmethod
    def available(cls, root: str | Path) -> list[str]:
        """The splits whose lists are there."""

    @classmethod
    def for_check(cls, root: str | Path, split: str) -> PairFiles:
        """The split with default options and without opening images."""
        return cls(root, split=split, read_sizes=False)

    @property
    def pairs(self) -> Sequence[Pair]:
        """All pairs in their fixed order."""
        return self._pairs

    def image(self, image_id: str) -> UInt8Image:
        """The image of that id, upright.

        Raises:
            DataError: no pair names it.
            ImageError: it cannot be read.
        """
        if image_id not in self.files:
            raise DataError(f"expected an image of {self.name}, found the id {image_id!r}; see files for ids")
        return read_image(self.files[image_id])

    def annotations(self) -> Iterator[tuple[str, str, Point]]:
        """(image id, keypoint, point) of everything annotated, each once."""
        seen = set()
        for pair in self.pairs:
            for image_id, points in (
                (pair.source_id, pair.source_points),
                (pair.target_id, pair.target_points),
            ):
                for keypoint, point in zip(pair.keypoints, points, strict=True):
                    if (key := (image_id, keypoint, point)) not in seen:
                        seen.add(key)
                        yield key

    def stored_sizes(self) -> dict[str, Size]:
        """Sizes that the annotations give, by image id; none where only the files tell."""
        return {}

    def _of(self, candidates: list[Candidate], categories: Sequence[str] | str | None) -> list[Candidate]:
        if categories is None:
            return candidates
        known = sorted({c.category for c in candidates})
        wanted = [categories] if isinstance(categories, str) else [str(c) for c in categories]
        for category in wanted:
            if category not in known:
                raise UnknownNameError(f"category of {self.name} ({self.split})", category, known)
        return [c for c in candidates if c.category in wanted]

    def _select(self, candidates: list[Candidate], num_pairs: int | None) -> list[Pair]:
        turns: Counter[str] = Counter()
        order: list[tuple[int, int]] = []  # (turn of its category, place)
        for place, candidate in enumerate(candidates):
            order.append((turns[candidate.category] if num_pairs is not None else 0, place))
            turns[candidate.category] += 1
        found: dict[int, Pair] = {}
        for _, place in sorted(order):
            if num_pairs is not None and len(found) >= num_pairs:
                break
            pair = self._pair(candidates[place])
            if pair is not None:
                found[place] = pair
        return [found[place] for place in sorted(found)]

    def _pair(self, candidate: Candidate) -> Pair | None:
        source, target, tags = self._views(candidate)
        names = tuple(name for name in source.points if name in target.points)
        if not names:
            self.skipped["no keypoint visible in both images"] += 1
            return None
        boxes = [self._share(view.bbox or extent(view.points.values())) for view in (source, target)]
        if max(boxes[1][2] - boxes[1][0], boxes[1][3] - boxes[1][1]) <= 0:
            # keypoints of one place only, and no box: there is no length to measure errors with
            self.skipped["target without extent"] += 1
            return None
        return Pair(
            pair_id=candidate.pair_id,
            dataset=self.name,
            category=self._share(candidate.category),
            source_id=self._share(source.image_id),
            target_id=self._share(target.image_id),
            keypoints=self._share(names),
            source_points=tuple(self._share(source.points[name]) for name in names),
            target_points=tuple(self._share(target.points[name]) for name in names),
            source_bbox=boxes[0],
            target_bbox=boxes[1],
            source_size=source.size or self._size(source.image_id),
            target_size=target.size or self._size(target.image_id),
            tags=tags,
        )

    def _size(self, image_id: str) -> Size:
        if not self.read_sizes:
            return UNKNOWN_SIZE
        if image_id not in self._sizes:
            self._sizes[image_id] = upright_size(self.files[image_id])
        return self._sizes[image_id]

    def _share(self, value: Any) -> Any:
        return self._shared.setdefault(value, value)


def _unique(candidates: Iterable[Candidate]) -> list[Candidate]:
    """The candidates, the second of an id called ``id-2`` and so on."""
    seen: Counter[str] = Counter()
    unique = []
    for c in candidates:
        seen[c.pair_id] += 1
        again = seen[c.pair_id]
        unique.append(c if again == 1 else Candidate(f"{c.pair_id}-{again}", c.category, c.row))
    return unique


def extent(points: Iterable[Point]) -> Box:
    """The smallest box around points."""
    xs, ys = zip(*points, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def present(x: float, y: float) -> bool:
    """Whether a stored keypoint is one: lists are padded with (-1, -1)."""
    return not (x == -1 and y == -1)


def numbers(values: Any, count: int, where: str) -> tuple[float, ...]:
    """``count`` finite numbers.

    Raises:
        DataError: other values; ``where`` says whose.
    """
    try:
        found = tuple(float(value) for value in values)
    except (TypeError, ValueError):
        found = ()
    if len(found) != count or not all(map(math.isfinite, found)):
        raise DataError(
            f"expected {count} finite numbers as {where}, found {str(values)[:80]}; mend the file"
        )
    return found


def box(values: Any, where: str) -> Box:
    """A box (x_min, y_min, x_max, y_max) with a width and a height.

    Raises:
        DataError: it has none.
    """
    x_min, y_min, x_max, y_max = numbers(values, 4, where)
    if x_max <= x_min or y_max <= y_min:
        raise DataError(
            f"expected x_min < x_max and y_min < y_max as {where}, found "
            f"{x_min:g} {y_min:g} {x_max:g} {y_max:g}; mend the file"
        )
    return x_min, y_min, x_max, y_max


def find_folder(root: Path, inside: Sequence[str], markers: Sequence[str], title: str) -> Path:
    """The first of ``root`` and ``root/inside`` that holds all ``markers``.

    Raises:
        DataError: none does; says what was looked for.
    """
    root = root.expanduser()
    if not root.exists():
        raise DataError(
            f"expected {title} in {root}, found no such folder: set data.root (how to get the data: "
            "diffcorr data list)"
        )
    for folder in (root, *(root / name for name in inside)):
        if all((folder / marker).exists() for marker in markers):
            return folder
    places = ", ".join([".", *inside])
    raise DataError(
        f"expected {' and '.join(markers)} of {title} in {root} (looked in {places}), found no such layout: "
        "see diffcorr data list"
    )
