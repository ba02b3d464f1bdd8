"""Pairs of PartWorld drawings to try the page with."""

from __future__ import annotations

from typing import NamedTuple

from diffcorr.app.pictures import Picture, picture_of
from diffcorr.data.partworld.categories import CATEGORIES
from diffcorr.data.partworld.dataset import scene
from diffcorr.types import Point

SHOWN = ((0, 9), (1, 37), (5, 23), (6, 15))
"""Numbers of val drawings: a cat, a car, a truck and a horse, each with another of its kind."""


class Example(NamedTuple):
    """Two drawings of one category, points of the first that both show, and what the first shows."""

    name: str
    source: Picture
    target: Picture
    points: list[Point]
    caption: str


def examples() -> list[Example]:
    """All of them, drawn anew."""
    found = []
    for numbers in SHOWN:
        category = list(CATEGORIES)[numbers[0] % len(CATEGORIES)]
        source, target = (scene("val", number, category) for number in numbers)
        names = [k for k in source.keypoints if source.visible[k] and target.visible.get(k)]
        points = [(round(x, 1), round(y, 1)) for x, y in (source.keypoints[k] for k in names[:3])]
        pictures = picture_of(source.image), picture_of(target.image)
        found.append(Example(category, *pictures, points, source.caption))
    return found
