"""PartWorld: determinism, geometry of the annotations, and the promises made about its lists."""

import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from diffcorr.data.partworld import (
    CLASSES,
    SIZE,
    PartWorldImages,
    PartWorldPairs,
    PartWorldSegmentation,
    draw_scene,
)
from diffcorr.data.partworld import test_list_hash as list_hash
from diffcorr.data.partworld.categories import CATEGORIES
from diffcorr.data.partworld.render import BACKGROUNDS, STYLES
from diffcorr.errors import DataError, DiffcorrError
from diffcorr.types import PairDataset, SegmentationDataset

ROOT = Path(__file__).parents[2]


def test_the_test_list_is_the_one_that_was_committed_before_training():
    committed = (ROOT / "docs/results/partworld_test_list.sha256").read_text().strip()
    assert list_hash() == committed


def test_a_scene_depends_on_its_seed_alone_also_across_processes():
    here = draw_scene((1, 3, 17))
    again = draw_scene((1, 3, 17))
    assert np.array_equal(here.image, again.image)
    assert here.caption == again.caption
    code = (
        "from diffcorr.data.partworld import draw_scene as draw; s = draw((1, 3, 17));"
        "print(s.caption, s.image.sum())"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert other.stdout.strip() == f"{here.caption} {here.image.sum()}"
    assert not np.array_equal(here.image, draw_scene((1, 3, 18)).image)


@pytest.mark.parametrize("category", CATEGORIES)
def test_categories_have_the_promised_keypoints(category):
    shape = CATEGORIES[category](np.random.default_rng(0))
    assert 6 <= len(shape.keypoints) <= 12
    assert len({p.word for p in shape.parts}) >= 5
    for a, b in shape.swaps:
        assert {a, b} <= set(shape.keypoints)


@pytest.mark.parametrize("index", range(0, 36))
def test_annotations_agree_with_the_pixels(index):
    scene = draw_scene((1, 2, index), list(CATEGORIES)[index % len(CATEGORIES)])
    assert scene.image.shape == (SIZE, SIZE, 3)
    assert scene.image.dtype == np.uint8
    x0, y0, x1, y1 = scene.bbox
    ys, xs = np.nonzero(scene.object_mask)
    assert x0 - 1 <= xs.min()
    assert xs.max() < x1 + 1
    assert y0 - 1 <= ys.min()
    assert ys.max() < y1 + 1
    assert 0 <= x0 < x1 <= SIZE
    assert 0 <= y0 < y1 <= SIZE
    category = CLASSES.index(scene.category)
    assert (scene.label[scene.object_mask] == category).all()
    assert ((scene.part_mask > 0) == scene.object_mask).all()
    assert {CLASSES[i] for i in np.unique(scene.label)} <= set(CATEGORIES) | set(BACKGROUNDS)
    for name, (x, y) in scene.keypoints.items():
        if scene.visible[name]:
            assert 0 <= x < SIZE
            assert 0 <= y < SIZE
            near = scene.object_mask[max(0, int(y) - 3) : int(y) + 4, max(0, int(x) - 3) : int(x) + 4]
            assert near.any(), name
    assert sum(scene.visible.values()) >= 4
    assert scene.category in scene.caption


def test_side_names_follow_the_picture_whether_mirrored_or_not():
    turned = {True: 0, False: 0}
    for index in range(40):
        scene = draw_scene((1, 2, index), "cat")
        if abs(scene.tags["rotation"]) < 15:
            assert scene.keypoints["left_eye"][0] < scene.keypoints["right_eye"][0]
            turned[scene.tags["mirror"]] += 1
    assert min(turned.values()) > 3


def test_front_of_a_thing_follows_the_facing_in_the_caption():
    for index in range(20):
        scene = draw_scene((1, 2, index), "car")
        front, rear = scene.keypoints["front_wheel"][0], scene.keypoints["rear_wheel"][0]
        assert ("facing right" in scene.caption) == (front > rear)


def test_pair_list():
    data = PartWorldPairs("test")
    assert isinstance(data, PairDataset)
    assert len(data.pairs) >= 240
    assert len({p.pair_id for p in data.pairs}) == len(data.pairs)
    assert min(Counter(p.source_id for p in data.pairs).values()) >= 3
    assert {p.category for p in data.pairs[:9]} == set(CATEGORIES)
    assert Counter(p.tags["styles"] for p in data.pairs)["cross"] > 100
    assert {p.tags["source_style"] for p in data.pairs} == set(STYLES)
    for pair in data.pairs:
        assert pair.source_id != pair.target_id
        assert len(pair.keypoints) == len(pair.source_points) == len(pair.target_points) > 0
        assert [q.point for q in pair.queries()] == list(pair.source_points)
    assert data.image(data.pairs[0].source_id).shape == (SIZE, SIZE, 3)


def test_cross_pairs_share_part_names():
    data = PartWorldPairs("test", "cross")
    assert len(data.pairs) == 40
    for pair in data.pairs:
        a, b = pair.category.split(">")
        assert a != b
        shapes = [CATEGORIES[c](np.random.default_rng(0)).keypoints for c in (a, b)]
        assert set(pair.keypoints) <= set(shapes[0]) & set(shapes[1])


def test_splits_and_uses_share_no_picture():
    pictures = [PartWorldPairs(s).image(f"{s}-{0:06d}").tobytes() for s in ("train", "val", "test")]
    pictures += [PartWorldSegmentation(s, 1)[0]["image"].tobytes() for s in ("train", "val", "test")]
    pictures += [PartWorldImages(s, 1)[0]["image"].tobytes() for s in ("train", "val", "test")]
    assert len(set(pictures)) == len(pictures)


def test_segmentation_set():
    data = PartWorldSegmentation("test")
    assert isinstance(data, SegmentationDataset)
    counts = Counter(data[i]["tags"]["category"] for i in range(len(data)))
    assert len(data) == 90
    assert set(counts.values()) == {10}
    assert all(len(np.unique(data[i]["label"])) >= 2 for i in range(len(data)))


@pytest.mark.parametrize(
    ("make", "option"),
    [(PartWorldPairs, "num_pairs"), (PartWorldSegmentation, "num_images"), (PartWorldImages, "num_images")],
)
def test_a_count_below_zero_is_one_line(make, option):
    with pytest.raises(DataError, match=f"expected {option} of 0 or more, found -1"):
        make(split="val", **{option: -1})


def test_no_pairs_are_no_pairs():
    assert not PartWorldPairs(num_pairs=0).pairs
    assert not PartWorldPairs(kind="cross", num_pairs=0).pairs


def test_unknown_split_says_what_exists():
    with pytest.raises(DiffcorrError, match=r"unknown split of partworld 'tset'; known: train, val, test"):
        PartWorldPairs("tset")
