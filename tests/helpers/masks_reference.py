"""Mask protocols the slow way: pixel by pixel, every possible match, and the programs' own resizing."""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment

Images = list[tuple[torch.Tensor, torch.Tensor]]
"""(mask, label) of each image."""


def global_scores(images: Images, num_classes: int) -> dict[str, float]:
    """One class for each segment id in all images: every one-to-one choice is tried, the best one scored."""
    pixels = [
        (s, c)
        for mask, label in images
        for s, c in zip(mask.flatten().tolist(), label.flatten().tolist(), strict=True)
        if c >= 0
    ]
    segments = sorted({s for s, _ in pixels})
    options = list(range(num_classes)) + [None] * len(segments)  # None: a segment may stay without a class
    best, most = {}, -1
    for choice in set(itertools.permutations(options, len(segments))):
        class_of = dict(zip(segments, choice, strict=True))
        right = sum(class_of[s] == c for s, c in pixels)
        if right > most:
            best, most = class_of, right
    ious = []
    for c in range(num_classes):
        both = sum(own == c and best[s] == c for s, own in pixels)
        either = sum(own == c or best[s] == c for s, own in pixels)
        if any(own == c for _, own in pixels):
            ious.append(both / either)
    return {"miou": sum(ious) / len(ious), "accuracy": most / len(pixels)}


def program_counts(mask: np.ndarray, label: np.ndarray, num_classes: int) -> np.ndarray:
    """tp, fp and fn of the DiffSeg and DiffCut programs: a solver over all classes and all segment ids."""
    table = np.zeros((num_classes, max(num_classes, int(mask.max()) + 1)), int)
    for s, c in zip(mask.ravel(), label.ravel(), strict=True):
        if 0 <= c < num_classes:
            table[c, s] += 1
    segment_of = linear_sum_assignment(-table)[1]
    tp = np.array([table[c, segment_of[c]] for c in range(num_classes)])
    held = np.array([table[:, segment_of[c]].sum() for c in range(num_classes)])
    return np.stack([tp, held - tp, table.sum(1) - tp])


def _crop(pixels: np.ndarray, side: int) -> torch.Tensor:
    height, width = pixels.shape
    top, left = (round((length - side) / 2.0) for length in (height, width))
    return torch.from_numpy(pixels[top : top + side, left : left + side].astype(np.float64))[None, None]


def diffseg_frame(pixels: np.ndarray, side: int) -> np.ndarray:
    """The largest centred square (odd pixel to the lower right) at ``side``, nearest by pixel centres."""
    height, width = pixels.shape
    short = min(height, width)
    top, left = (height - short) // 2, (width - short) // 2
    square = pixels[top : top + short, left : left + short]
    places = [math.floor((i + 0.5) * (short / side)) for i in range(side)]
    return square[np.ix_(places, places)]


def diffcut_frame(pixels: np.ndarray) -> np.ndarray:
    """A centred square of a pixel less, to 1024 by nearest-exact, to 128 by nearest."""
    large = F.interpolate(_crop(pixels, min(pixels.shape) - 1), size=(1024, 1024), mode="nearest-exact")
    return F.interpolate(large, size=(128, 128), mode="nearest")[0, 0].long().numpy()


def diffcut_counts(
    mask: np.ndarray, label: np.ndarray, num_classes: int, background: int | None
) -> np.ndarray:
    """tp, fp and fn (3, C) of one image, classes in their own order."""
    mask, label = diffcut_frame(mask), diffcut_frame(label)
    if background is None:
        return program_counts(mask, label, num_classes)
    # the program numbers objects first; everything else, void too, is -1 and then the last class
    objects = [c for c in range(num_classes) if c != background]
    number = {c: place for place, c in enumerate(objects)}
    label = np.vectorize(lambda c: number.get(int(c), -1))(label)
    table = np.zeros((len(objects), max(len(objects), int(mask.max()) + 1)), int)
    for s, c in zip(mask.ravel(), label.ravel(), strict=True):
        if c >= 0:
            table[c, s] += 1
    segment_of = linear_sum_assignment(-table)[1]
    assigned = table[:, segment_of]
    kept = {int(segment_of[c]) for c in range(len(objects)) if assigned[c].max() > 0}
    merged = mask.copy()
    merged[~np.isin(mask, list(kept))] = mask.max() + 1
    label[label < 0] = len(objects)
    counts = program_counts(merged, label, num_classes)
    back = np.zeros_like(counts)
    back[:, [*objects, background]] = counts
    return back
