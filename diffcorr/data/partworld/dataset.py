"""PartWorld as data sets: captioned images, pairs for correspondence, labels for segmentation.

Splits draw from disjoint seeds. Image number ``i`` of the correspondence and segmentation sets shows
category ``i % 9``, so that every stretch of an index holds all categories alike.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from functools import cached_property, lru_cache
from itertools import islice
from typing import Literal, TypedDict

import numpy as np
import numpy.typing as npt

from diffcorr.data.counts import check_count
from diffcorr.data.partworld.categories import CATEGORIES
from diffcorr.data.partworld.scene import CLASSES, Scene, draw_scene
from diffcorr.errors import UnknownNameError
from diffcorr.types import Pair, SegmentationSample, UInt8Image

NAME = "partworld"
SPLITS = {"train": 1, "val": 2, "test": 3}
VERSION = 1  # part of every seed: a change of the drawing code is a new data set
PER_CATEGORY = 8  # images of a category in the pair lists
NUM_CROSS = 40
SEGMENTATION_OFFSET = 99_999  # segmentation images are none of the pairs' images


def _check_split(split: str) -> str:
    if split not in SPLITS:
        raise UnknownNameError("split of partworld", split, SPLITS)
    return split


@lru_cache(maxsize=512)
def scene(split: str, index: int, category: str | None = None) -> Scene:
    """The picture of (split, index), of a random category unless one is given."""
    return draw_scene((VERSION, SPLITS[_check_split(split)], index), category)


class CaptionedImage(TypedDict):
    """A picture and what is said of it."""

    image_id: str
    image: UInt8Image
    caption: str


class PartWorldImages:
    """Captioned pictures of random categories, for training the embedded model.

    Args:
        split: train, val or test.
        num_images: how many; any number, they are drawn when asked for.
    """

    def __init__(self, split: str = "train", num_images: int = 50_000) -> None:
        self.name, self.split, self.num_images = NAME, _check_split(split), num_images
        check_count("num_images", num_images)

    def __len__(self) -> int:
        return self.num_images

    def __getitem__(self, index: int) -> CaptionedImage:
        if not 0 <= index < self.num_images:
            raise IndexError(index)
        # past the numbers that pairs and segmentation use, so that no split shares a picture with them
        drawn = draw_scene((VERSION, SPLITS[self.split], 10**6 + index))
        return {"image_id": f"{self.split}-{10**6 + index}", "image": drawn.image, "caption": drawn.caption}


def _image_id(split: str, index: int) -> str:
    return f"{split}-{index:06d}"


def _scene_of(image_id: str) -> Scene:
    split, index = image_id.rsplit("-", 1)
    number = int(index)
    return scene(split, number, list(CATEGORIES)[number % len(CATEGORIES)])


def _level(value: float, steps: Sequence[float]) -> int:
    return sum(value > step for step in steps)


def _pair(split: str, kind: str, source: int, target: int) -> Pair:
    """The pair of two images; its tags follow SPair-71k's difficulty flags.

    viewpoint_variation: 0 alike, 1 turned by more than 15 degrees, 2 mirrored. scale_variation: 0, 1, 2
    for sizes that differ by less than 1.25, less than 1.6, more. truncation and occlusion: 0 none,
    1 source, 2 target, 3 both.
    """
    ids = [_image_id(split, i) for i in (source, target)]
    a, b = (_scene_of(i) for i in ids)
    names = tuple(k for k in a.keypoints if k in b.keypoints and a.visible[k] and b.visible[k])
    sides = [max(s.bbox[2] - s.bbox[0], s.bbox[3] - s.bbox[1]) for s in (a, b)]
    turned = abs(float(a.tags["rotation"]) - float(b.tags["rotation"]))  # type: ignore[arg-type]
    mirrored = a.tags["mirror"] != b.tags["mirror"]
    tags = {
        "viewpoint_variation": 2 if mirrored else int(turned > 15),
        "scale_variation": _level(max(sides) / min(sides), (1.25, 1.6)),
        "truncation": int(bool(a.tags["truncated"])) + 2 * int(bool(b.tags["truncated"])),
        "occlusion": int(bool(a.tags["occluded"])) + 2 * int(bool(b.tags["occluded"])),
        "source_style": a.style,
        "target_style": b.style,
        "styles": "same" if a.style == b.style else "cross",
    }
    height, width = a.image.shape[:2]
    return Pair(
        pair_id=f"{kind}-{ids[0]}-{ids[1]}",
        dataset=NAME,
        category=a.category if a.category == b.category else f"{a.category}>{b.category}",
        source_id=ids[0],
        target_id=ids[1],
        keypoints=names,
        source_points=tuple(a.keypoints[k] for k in names),
        target_points=tuple(b.keypoints[k] for k in names),
        source_bbox=a.bbox,
        target_bbox=b.bbox,
        source_size=(width, height),
        target_size=(width, height),
        tags=tags,
    )


def _same_category(split: str) -> Iterator[Pair]:
    """28 pairs of each category: every image is a source three or four times, pairs differ."""
    num = len(CATEGORIES)
    for a in range(PER_CATEGORY):
        for offset in range(1, 5 if a < PER_CATEGORY // 2 else 4):
            for c in range(num):
                b = (a + offset) % PER_CATEGORY
                yield _pair(split, "same", a * num + c, b * num + c)


def _cross_category(split: str) -> Iterator[Pair]:
    """Pairs over parts that bear the same name (an eye, a wheel) in two categories."""
    num = len(CATEGORIES)
    for a in range(PER_CATEGORY):
        for shift in range(1, num):
            for c in range(num):
                b = (a + 1 + c) % PER_CATEGORY
                pair = _pair(split, "cross", a * num + c, b * num + (c + shift) % num)
                if pair.keypoints:
                    yield pair


class PartWorldPairs:
    """The fixed lists of pairs: 252 of one category each, or 40 that cross categories.

    Args:
        split: train, val or test.
        kind: ``same`` category or ``cross`` category; the two are scored apart.
        num_pairs: the first so many (None: all). Every stretch of nine ``same`` pairs has all categories.
    """

    def __init__(
        self, split: str = "test", kind: Literal["same", "cross"] = "same", num_pairs: int | None = None
    ) -> None:
        makers = {"same": _same_category, "cross": _cross_category}
        if kind not in makers:
            raise UnknownNameError("kind of partworld pairs", kind, makers)
        # the two lists are scored apart, so they bear two names; their queries are of one data set
        self.name = NAME if kind == "same" else f"{NAME}_{kind}"
        self.split, self.kind = _check_split(split), kind
        check_count("num_pairs", num_pairs)
        full = list(islice(makers[kind](split), NUM_CROSS if kind == "cross" else None))
        self._pairs = full[:num_pairs]

    @property
    def pairs(self) -> Sequence[Pair]:
        """All pairs in their fixed order."""
        return self._pairs

    def image(self, image_id: str) -> UInt8Image:
        """The picture of that id, (128, 128, 3)."""
        return _scene_of(image_id).image

    def caption(self, image_id: str) -> str:
        """What is said of that picture."""
        return _scene_of(image_id).caption

    @cached_property
    def label_names(self) -> tuple[str, ...]:
        """What is not the main object, then the words of all parts: an eye is an eye in any category."""
        images = {i for pair in self._pairs for i in (pair.source_id, pair.target_id)}
        return ("other", *sorted({part for i in images for part in _scene_of(i).part_names}))

    def label(self, image_id: str) -> npt.NDArray[np.int64]:
        """Visible parts of the main object, (128, 128), places in `label_names`."""
        drawn = _scene_of(image_id)
        table = np.array([0, *(self.label_names.index(part) for part in drawn.part_names)])
        return table[drawn.part_mask]


class PartWorldSegmentation:
    """Pictures with semantic labels: nine categories and six kinds of background.

    Args:
        split: train, val or test.
        num_images: how many; the first 90 are the standard set.
    """

    classes = CLASSES

    def __init__(self, split: str = "test", num_images: int = 90) -> None:
        self.name, self.split, self.num_images = NAME, _check_split(split), num_images
        check_count("num_images", num_images)

    def __len__(self) -> int:
        return self.num_images

    def __getitem__(self, index: int) -> SegmentationSample:
        if not 0 <= index < self.num_images:
            raise IndexError(index)
        number = SEGMENTATION_OFFSET + index
        drawn = _scene_of(_image_id(self.split, number))
        tags = {**drawn.tags, "category": drawn.category, "caption": drawn.caption}
        return {
            "image_id": _image_id(self.split, number),
            "image": drawn.image,
            "label": drawn.label,
            "tags": tags,
        }


def test_list_hash() -> str:
    """SHA-256 of the test lists: ids, keypoints, points and boxes to a tenth of a pixel, in order."""
    rows = [
        [
            p.pair_id,
            p.category,
            p.keypoints,
            np.round([*p.source_points, *p.target_points], 1).tolist(),
            np.round([*p.source_bbox, *p.target_bbox], 1).tolist(),
        ]
        for kind in ("same", "cross")
        for p in PartWorldPairs("test", kind).pairs
    ]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()
