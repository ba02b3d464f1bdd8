"""The categories of PartWorld, in the order of their labels."""

from __future__ import annotations

from collections.abc import Callable

from diffcorr.data.partworld.animals import bird, cat, fish, horse
from diffcorr.data.partworld.objects import car, flower, house, teapot, truck
from diffcorr.data.partworld.shapes import Rng, Shape

CATEGORIES: dict[str, Callable[[Rng], Shape]] = {
    "cat": cat,
    "car": car,
    "bird": bird,
    "house": house,
    "fish": fish,
    "truck": truck,
    "horse": horse,
    "flower": flower,
    "teapot": teapot,
}
"""Every category and the function that draws one individual of it."""
