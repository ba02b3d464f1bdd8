"""Scores written the slow, obvious way: loops over points, pixels and all possible matchings."""

from __future__ import annotations

import itertools
import math


def pck(pairs: list[tuple[list, list, float]], alpha: float, average: str = "image") -> float:
    """`pairs` holds (predicted points, true points, threshold length)."""
    per_pair = []
    for pred, target, length in pairs:
        hits = [math.dist(p, t) <= alpha * length for p, t in zip(pred, target, strict=True)]
        per_pair.append(hits)
    if average == "point":
        hits = [hit for hits in per_pair for hit in hits]
        return sum(hits) / len(hits)
    return sum(sum(hits) / len(hits) for hits in per_pair) / len(per_pair)


def per_image_scores(images: list[tuple[list, list]], num_classes: int) -> dict[str, float]:
    """`images` holds (mask, label) as nested lists; every matching of every image is tried."""
    intersection, union = [0] * num_classes, [0] * num_classes
    correct = total = 0
    for mask, label in images:
        pixels = [
            (s, c)
            for mask_row, label_row in zip(mask, label, strict=True)
            for s, c in zip(mask_row, label_row, strict=True)
            if c >= 0
        ]
        classes = sorted({c for _, c in pixels})
        class_of = _best_matching(pixels, sorted({s for s, _ in pixels}), classes)
        for c in range(num_classes):
            truth = [own == c for _, own in pixels]
            found = [class_of.get(s) == c for s, _ in pixels]
            intersection[c] += sum(t and f for t, f in zip(truth, found, strict=True))
            union[c] += sum(t or f for t, f in zip(truth, found, strict=True))
        correct += sum(class_of.get(s) == c for s, c in pixels)
        total += len(pixels)
    ious = [i / u for i, u in zip(intersection, union, strict=True) if u > 0]
    return {"miou": sum(ious) / len(ious), "accuracy": correct / total}


def _best_matching(pixels: list, segments: list, classes: list) -> dict:
    """The segment -> class assignment with most correct pixels; the caller avoids equal ones."""
    overlap = {pair: pixels.count(pair) for pair in set(pixels)}
    # None: a segment may stay without a class
    options = classes + [None] * len(segments)
    best, most = {}, -1
    for choice in itertools.permutations(options, len(segments)):
        value = sum(overlap.get((s, c), 0) for s, c in zip(segments, choice, strict=True))
        if value > most:
            most = value
            best = {s: c for s, c in zip(segments, choice, strict=True) if overlap.get((s, c), 0) > 0}
    return best
