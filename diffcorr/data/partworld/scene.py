"""One PartWorld picture from one random generator: what is in it, where, and what is said of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from diffcorr.data.partworld.categories import CATEGORIES
from diffcorr.data.partworld.render import (
    BACKGROUNDS,
    LOWER,
    PALETTE,
    STYLES,
    TEXTURES,
    UPPER,
    USUAL,
    Material,
    render,
    wobble,
)
from diffcorr.data.partworld.shapes import Rng, Shape
from diffcorr.types import Box, Point, UInt8Image

SIZE = 128
"""Side of every picture in pixels."""
CLASSES = (*CATEGORIES, *BACKGROUNDS)
"""Semantic classes of the label maps: the categories, then the kinds of background."""
STYLE_WORDS = {
    "flat": "flat drawing",
    "shaded": "shaded picture",
    "sketch": "pencil sketch",
    "painting": "painting",
}
MIN_VISIBLE = 4  # fewer visible keypoints than this: drawn anew


@dataclass(frozen=True)
class Scene:
    """A picture and everything that is true of it. Points and boxes in pixels of the picture."""

    image: UInt8Image  # (128, 128, 3)
    caption: str
    category: str
    style: str
    keypoints: Mapping[str, Point]  # all of them, visible or not
    visible: Mapping[str, bool]
    bbox: Box
    object_mask: npt.NDArray[np.bool_]  # (128, 128), visible pixels of the main object
    part_mask: npt.NDArray[np.int64]  # (128, 128), 0 elsewhere, else 1 + index into part_names
    part_names: tuple[str, ...]
    label: npt.NDArray[np.int64]  # (128, 128), index into CLASSES
    tags: Mapping[str, object]


@dataclass(frozen=True)
class _Pose:
    matrix: npt.NDArray[np.float64]  # (2, 2), object to picture
    centre: npt.NDArray[np.float64]
    mirror: bool
    rotation: float  # degrees

    def __call__(self, points: npt.ArrayLike) -> npt.NDArray[np.float64]:
        return np.asarray(points, np.float64) @ self.matrix.T + self.centre


def _pose(rng: Rng, scale: float, centre: npt.ArrayLike, tilt: float) -> _Pose:
    """Rotation, scale, mirror and anisotropy. ``scale``: half extent in pixels."""
    rotation = float(np.clip(rng.normal(0, tilt), -32, 32))
    mirror = bool(rng.random() < 0.5)
    stretch = float(np.exp(rng.normal(0, 0.11)))
    a = np.deg2rad(rotation)
    turn = np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]])
    matrix = turn @ np.diag([(-1 if mirror else 1) * scale * stretch, scale / stretch])
    return _Pose(matrix, np.asarray(centre, np.float64), mirror, rotation)


class _Canvas:
    """The index map at twice the picture's size, and the materials that its numbers stand for."""

    def __init__(self) -> None:
        self.map = Image.new("L", (2 * SIZE, 2 * SIZE))
        self.pen = ImageDraw.Draw(self.map)
        self.materials: list[Material] = []

    def add(self, material: Material) -> int:
        self.materials.append(material)
        return len(self.materials) - 1

    def polygon(self, points: npt.NDArray[np.float64], number: int) -> None:
        # pixel centres lie at +0.5 in our convention and at 0 in Pillow's
        self.pen.polygon([(2 * float(x) - 0.5, 2 * float(y) - 0.5) for x, y in points], fill=number)

    def array(self) -> npt.NDArray[np.uint8]:
        return np.asarray(self.map)


def _pick(rng: Rng, options: tuple[str, ...] | list[str]) -> str:
    return options[int(rng.integers(len(options)))]


def _background(canvas: _Canvas, rng: Rng) -> str:
    """Paint one or two kinds of background; the words that describe them."""

    def coloured(kind: str, taken: str | None) -> str:
        usual = [c for c in USUAL[kind] if c != taken]
        return _pick(rng, usual if rng.random() < 0.5 else [c for c in PALETTE if c != taken])

    if rng.random() < 0.2:
        kind = _pick(rng, BACKGROUNDS)
        colour = coloured(kind, None)
        number = canvas.add(Material(colour, kind, 0, kind, kind))
        canvas.pen.rectangle((0, 0, 2 * SIZE, 2 * SIZE), fill=number)
        return f"{colour} {kind}"
    upper, lower = _pick(rng, UPPER), _pick(rng, LOWER)
    upper_colour = coloured(upper, None)
    lower_colour = coloured(lower, upper_colour)
    top = canvas.add(Material(upper_colour, upper, 0, upper, upper))
    canvas.pen.rectangle((0, 0, 2 * SIZE, 2 * SIZE), fill=top)
    horizon, slope, bump = rng.uniform(0.42, 0.78) * SIZE, rng.normal(0, 0.08), rng.uniform(0, 5)
    x = np.linspace(0, SIZE, 25)
    y = horizon + slope * (x - SIZE / 2) + bump * np.sin(x / SIZE * rng.uniform(3, 9) + rng.uniform(0, 6))
    ground = np.concatenate([np.stack([x, y], 1), [[SIZE, SIZE], [0, SIZE]]])
    canvas.polygon(ground, canvas.add(Material(lower_colour, lower, 0, lower, lower)))
    return f"{lower_colour} {lower} and {upper_colour} {upper}"


def _draw(
    canvas: _Canvas, shape: Shape, pose: _Pose, category: str, thing: int, rng: Rng
) -> dict[str, Material]:
    """Draw one individual; the material of every part, by its word."""
    colours: dict[str, tuple[str, str]] = {}
    free = list(rng.permutation(list(PALETTE)))
    numbers: dict[str, Material] = {}
    for part in shape.parts:
        if part.word not in colours:
            texture = "plain" if rng.random() < 0.4 else _pick(rng, TEXTURES)
            # neighbouring parts seldom share a colour; small things repeat now and then
            colour = free.pop() if free and rng.random() < 0.9 else _pick(rng, list(PALETTE))
            colours[part.word] = (str(colour), texture)
        colour, texture = colours[part.word]
        material = Material(colour, texture, thing, category, part.word, part.shade)
        numbers.setdefault(part.word, material)
        number = canvas.add(material)
        for points in part.polygons:
            canvas.polygon(pose(points), number)
    return numbers


def _describe(category: str, parts: Mapping[str, Material], rng: Rng) -> str:
    """The main colour and the coloured parts, in random order, one now and then left unsaid."""
    main = {"car": "body", "truck": "cargo", "house": "walls", "flower": "petals"}.get(category, "body")
    first = parts[main]
    texture = "" if first.texture == "plain" else f"{first.texture} "
    words = [f"{m.colour} {word}" for word, m in parts.items() if word != main and rng.random() < 0.85]
    words = [str(w) for w in rng.permutation(words)]
    joined = ", ".join(words[:-1]) + (" and " if len(words) > 1 else "") + words[-1] if words else ""
    return f"a {texture}{first.colour} {category}" + (f" with {joined}" if joined else "")


def _attempt(rng: Rng, category: str) -> Scene | None:
    canvas = _Canvas()
    style = _pick(rng, STYLES)
    where = _background(canvas, rng)
    shape = CATEGORIES[category](rng)
    scale = SIZE * rng.uniform(0.28, 0.46)
    slack = max(0.0, SIZE / 2 - scale * 0.95)
    reach = slack + (0.3 * scale if rng.random() < 0.2 else 0.0)  # now and then over the border
    pose = _pose(rng, scale, SIZE / 2 + rng.uniform(-reach, reach, 2), 13)

    others: list[str] = []
    occluder = rng.random() < 0.15
    distant = rng.random() < 0.25

    def other(thing: int, size: float, centre: npt.ArrayLike) -> None:
        name = _pick(rng, [c for c in CATEGORIES if c != category])
        body = CATEGORIES[name](rng)
        materials = _draw(canvas, body, _pose(rng, size, centre, 10), name, thing, rng)
        main = {"truck": "cargo", "house": "walls", "flower": "petals"}.get(name, "body")
        others.append(f"a small {materials[main].colour} {name}")

    if distant:
        side = rng.choice([-1, 1])
        other(
            2,
            SIZE * rng.uniform(0.13, 0.19),
            SIZE / 2 + np.array([side * rng.uniform(34, 50), rng.uniform(-44, 40)]),
        )
    parts = _draw(canvas, shape, pose, category, 1, rng)
    whole = np.array([m.thing for m in canvas.materials])[canvas.array()] == 1
    if occluder:
        side = np.array([np.cos(a := rng.uniform(0, 2 * np.pi)), np.sin(a)])
        other(3, SIZE * rng.uniform(0.12, 0.18), pose.centre + side * scale * rng.uniform(0.6, 1.0))

    index = canvas.array()
    if style in ("sketch", "painting"):
        index = wobble(index, rng)
    image = render(index, canvas.materials, style, rng)
    centre_index = index[1::2, 1::2]  # the picture's own grid
    thing = np.array([m.thing for m in canvas.materials])[centre_index]
    label = np.array([CLASSES.index(m.label) for m in canvas.materials])[centre_index]
    part_names = tuple(parts)
    part_of = np.array([1 + part_names.index(m.part) if m.thing == 1 else 0 for m in canvas.materials])

    swap = {k: v for pair in shape.swaps for k, v in (pair, pair[::-1])} if pose.mirror else {}
    keypoints = {
        swap.get(k, k): (float(p[0]), float(p[1])) for k, xy in shape.keypoints.items() for p in [pose(xy)]
    }
    keypoints = {k: keypoints[k] for k in shape.keypoints}
    visible = {k: _visible(thing, xy) for k, xy in keypoints.items()}
    if sum(visible.values()) < MIN_VISIBLE:
        return None
    ys, xs = np.nonzero(whole)
    bbox = (float(xs.min()) / 2, float(ys.min()) / 2, float(xs.max() + 1) / 2, float(ys.max() + 1) / 2)
    outline = np.concatenate([pose(p) for part in shape.parts for p in part.polygons])
    caption = f"{STYLE_WORDS[style]} of {_describe(category, parts, rng)}"
    if shape.faces:
        caption += f" facing {'left' if pose.mirror else 'right'}"
    caption = "a " + caption + f" on {where}" + "".join(f" and {o}" for o in others)
    tags = {
        "style": style,
        "truncated": bool((outline < -1).any() or (outline > SIZE + 1).any()),
        "occluded": bool(((thing == 3) & (whole[1::2, 1::2])).any()),
        "mirror": pose.mirror,
        "rotation": pose.rotation,
        "second_object": bool(others),
    }
    return Scene(
        image,
        caption,
        category,
        style,
        keypoints,
        visible,
        bbox,
        thing == 1,
        part_of[centre_index].astype(np.int64),
        part_names,
        label.astype(np.int64),
        tags,
    )


def _visible(thing: npt.NDArray[np.int64], point: Point) -> bool:
    """Inside the picture, on or at the border of the main object, under no other object."""
    x, y = int(np.floor(point[0])), int(np.floor(point[1]))
    if not (0 <= x < SIZE and 0 <= y < SIZE) or thing[y, x] > 1:
        return False
    return bool((thing[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3] == 1).any())


def draw_scene(seed: tuple[int, ...], category: str | None = None) -> Scene:
    """Draw the picture of that seed; of a random category unless one is given.

    A picture whose main object shows fewer than ``MIN_VISIBLE`` keypoints is drawn anew, from the
    same seed and the attempt's number, so that the result depends on the seed alone.
    """
    for attempt in range(100):
        rng = np.random.default_rng([*seed, attempt])
        name = category or _pick(rng, list(CATEGORIES))
        scene = _attempt(rng, name)
        if scene is not None:
            return scene
    raise AssertionError("a hundred scenes in a row without visible keypoints")
