"""Every preset written out by itself, in loops over plain numbers, the way its program goes about it.

Nothing here is shared with the package, and no two presets share a line that could hide a mistake: each
one is a function from a pair and its predictions to (distance, threshold length) of every point.
"""

from __future__ import annotations

import math
import random

from diffcorr.types import Pair, PointPrediction

Points = dict[str, tuple[float, float]]


def box_side(box) -> float:
    return max(box[2] - box[0], box[3] - box[1])


def in_original_pixels(pair: Pair, found: Points) -> list[float]:
    return [math.dist(found[k], t) for k, t in zip(pair.keypoints, pair.target_points, strict=True)]


def stretched(point, size) -> tuple[float, float]:
    return point[0] * 512 / size[0], point[1] * 512 / size[1]


def letterboxed(point, size) -> tuple[float, float]:
    """The point in a square of 840 with the image in its middle; the shorter side in whole pixels."""
    width, height = size
    factor = 840 / max(width, height)
    x, y = point[0] * factor, point[1] * factor
    if height < width:
        y += int((840 - round(840 * height / width)) / 2)
    elif width < height:
        x += int((840 - round(840 * width / height)) / 2)
    return x, y


def in_stretched_pixels(pair: Pair, found: Points) -> list[float]:
    return [
        math.dist(stretched(found[k], pair.target_size), stretched(t, pair.target_size))
        for k, t in zip(pair.keypoints, pair.target_points, strict=True)
    ]


def in_letterbox(pair: Pair, found: Points) -> list[float]:
    return [
        math.dist(letterboxed(found[k], pair.target_size), letterboxed(t, pair.target_size))
        for k, t in zip(pair.keypoints, pair.target_points, strict=True)
    ]


def target_box(pair: Pair, found: Points) -> tuple[list[float], float]:
    return in_original_pixels(pair, found), box_side(pair.target_bbox)


def target_box_in_letterbox(pair: Pair, found: Points) -> tuple[list[float], float]:
    return in_letterbox(pair, found), box_side(pair.target_bbox) * 840 / max(pair.target_size)


def source_box_stretched(pair: Pair, found: Points) -> tuple[list[float], float]:
    corners = [stretched(c, pair.source_size) for c in (pair.source_bbox[:2], pair.source_bbox[2:])]
    return in_stretched_pixels(pair, found), box_side((*corners[0], *corners[1]))


def padded_keypoints_stretched(pair: Pair, found: Points) -> tuple[list[float], float]:
    """A list of 40 points, of which those that are not there are (-1, -1), and its extent."""
    points = [stretched(t, pair.target_size) for t in pair.target_points]
    points += [(-1.0, -1.0)] * (40 - len(points))
    xs, ys = zip(*points, strict=True)
    return in_stretched_pixels(pair, found), max(max(xs) - min(xs), max(ys) - min(ys))


def target_box_by_x_stretched(pair: Pair, found: Points) -> tuple[list[float], float]:
    return in_stretched_pixels(pair, found), box_side(pair.target_bbox) * 512 / pair.target_size[0]


def image_side(pair: Pair, found: Points) -> tuple[list[float], float]:
    return in_original_pixels(pair, found), max(pair.target_size)


def mean(values) -> float:
    values = list(values)
    return sum(values) / len(values)


def mean_over_images(hits: dict[str, list[list[bool]]]) -> float:
    return mean(mean(pair) for pairs in hits.values() for pair in pairs)


def mean_over_points(hits: dict[str, list[list[bool]]]) -> float:
    return mean(hit for pairs in hits.values() for pair in pairs for hit in pair)


def mean_over_categories_of_points(hits: dict[str, list[list[bool]]]) -> float:
    return mean(mean(hit for pair in pairs for hit in pair) for pairs in hits.values())


def mean_over_categories_of_images(hits: dict[str, list[list[bool]]]) -> float:
    return mean(mean(mean(pair) for pair in pairs) for pairs in hits.values())


PRESETS = {
    "standard": (target_box, mean_over_images, "<=", (0.10, 0.05)),
    "per_point": (target_box, mean_over_points, "<=", (0.10, 0.05)),
    "per_category": (target_box, mean_over_categories_of_points, "<=", (0.10, 0.05)),
    "dift": (target_box, mean_over_points, "<=", (0.10,)),
    "sd_dino": (target_box_in_letterbox, mean_over_categories_of_points, "<", (0.10, 0.05, 0.01)),
    "geoaware": (target_box_in_letterbox, mean_over_images, "<", (0.10, 0.05, 0.01)),
    "legacy_hedlin_spair": (source_box_stretched, mean_over_images, "<=", (0.10, 0.05)),
    "legacy_hedlin_willow": (padded_keypoints_stretched, mean_over_images, "<=", (0.10, 0.05)),
    "legacy_hedlin_cub": (target_box_by_x_stretched, mean_over_images, "<=", (0.10, 0.05)),
    "pf_pascal": (image_side, mean_over_images, "<=", (0.10, 0.05, 0.15)),
}


def pck(protocol: str, pairs: list[Pair], predictions: list[PointPrediction]) -> dict[str, float]:
    """Scores as fractions, keyed as the package keys them."""
    measure, average, comparison, alphas = PRESETS[protocol]
    found: dict[str, Points] = {}
    for p in predictions:
        found.setdefault(p.pair_id, {})[p.keypoint] = (p.x, p.y)
    scores = {}
    for alpha in alphas:
        hits: dict[str, list[list[bool]]] = {}
        for pair in pairs:
            errors, length = measure(pair, found[pair.pair_id])
            hits.setdefault(pair.category, []).append(
                [e <= alpha * length if comparison == "<=" else e < alpha * length for e in errors]
            )
        scores[f"pck@{alpha:.2f}"] = average(hits)
    return scores


def make_pair(number: int = 0, **changes) -> Pair:
    """A pair of which everything differs: two images, two boxes, no two sides alike."""
    values = {
        "pair_id": f"pair{number}",
        "dataset": "toy",
        "category": "bird",
        "source_id": "a",
        "target_id": "b",
        "keypoints": ("beak", "tail"),
        "source_points": ((5.0, 6.0), (7.0, 8.0)),
        "target_points": ((100.0, 50.0), (40.0, 150.0)),
        "source_bbox": (0.0, 0.0, 128.0, 32.0),
        "target_bbox": (20.0, 30.0, 120.0, 190.0),
        "source_size": (256, 512),
        "target_size": (1024, 256),
    }
    return Pair(**(values | changes))


def random_pairs(num_pairs: int, seed: int = 0) -> tuple[list[Pair], list[PointPrediction]]:
    """Pairs of three unequal categories with one to nine keypoints each, and how a method might find them."""
    rng = random.Random(seed)
    pairs, predictions = [], []
    for number in range(num_pairs):
        keypoints = tuple(rng.sample([f"k{n}" for n in range(12)], rng.randint(1, 9)))
        sizes = [(rng.randint(60, 900), rng.randint(60, 900)) for _ in range(2)]
        points = [[(rng.uniform(0, w), rng.uniform(0, h)) for _ in keypoints] for w, h in sizes]
        boxes = [(0.1 * w, 0.2 * h, rng.uniform(0.3, 1) * w, rng.uniform(0.4, 1) * h) for w, h in sizes]
        pair = Pair(
            f"pair{number}",
            "toy",
            rng.choice(["ant", "bee", "bee", "cow", "cow", "cow"]),
            "a",
            "b",
            keypoints,
            tuple(points[0]),
            tuple(points[1]),
            *boxes,
            *sizes,
            tags={"truncation": number % 4, "styles": "same"},
        )
        pairs.append(pair)
        for name, (x, y) in zip(keypoints, points[1], strict=True):
            spread = 0.1 * rng.random() * max(sizes[1])
            found = (x + rng.gauss(0, spread), y + rng.gauss(0, spread))
            predictions.append(PointPrediction(pair.pair_id, name, f"toy/a/{name}", *found, rng.random()))
    rng.shuffle(predictions)
    return pairs, predictions
