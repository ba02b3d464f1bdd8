"""Pixels of PartWorld: palette, textures, backgrounds and the four rendering styles.

A scene is first an *index map* at twice the output size: every pixel holds the number of a
material (a colour, a texture, a thing it belongs to). Styles turn materials into colours, and the
index map itself gives exact masks. Halving the canvas at the end is the anti-aliasing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

Rng = np.random.Generator
Float = npt.NDArray[np.float32]

PALETTE: dict[str, tuple[int, int, int]] = {
    "red": (206, 44, 48),
    "orange": (238, 134, 38),
    "yellow": (246, 214, 66),
    "green": (62, 150, 70),
    "teal": (40, 160, 168),
    "blue": (52, 96, 200),
    "purple": (132, 74, 178),
    "pink": (240, 140, 182),
    "brown": (134, 88, 52),
    "white": (242, 240, 234),
    "gray": (138, 140, 146),
    "black": (40, 38, 44),
}
TEXTURES = ("plain", "striped", "dotted", "checked", "speckled", "wavy")
STYLES = ("flat", "shaded", "sketch", "painting")
BACKGROUNDS = ("sky", "bricks", "planks", "grass", "sand", "water")
UPPER, LOWER = BACKGROUNDS[:3], BACKGROUNDS[3:]
# Usual colours of each background kind; half of the time any colour of the palette is taken.
USUAL = {
    "sky": ("blue", "teal", "pink"),
    "bricks": ("red", "brown", "orange"),
    "planks": ("brown", "white", "gray"),
    "grass": ("green", "yellow", "teal"),
    "sand": ("yellow", "orange", "white"),
    "water": ("blue", "teal", "purple"),
}


@dataclass(frozen=True)
class Material:
    """What one index of the index map looks like, and what it belongs to.

    ``thing``: 0 background, 1 the main object, 2 and more other objects. ``label``: semantic name.
    """

    colour: str
    texture: str
    thing: int
    label: str
    part: str
    shade: float = 1.0


def noise(rng: Rng, size: int, cells: int) -> Float:
    """Smooth noise in [0, 1], shape (size, size), with about ``cells`` blobs a side."""
    grid = Image.fromarray(rng.random((cells + 1, cells + 1)).astype(np.float32))
    return np.asarray(grid.resize((size, size), Image.Resampling.BICUBIC), dtype=np.float32).clip(0, 1)


class Textures:
    """Scalar fields in about [-1, 1], shape (size, size), one for every texture and background kind.

    All share one scene's orientation and frequencies, and a field is made when first asked for.
    """

    def __init__(self, rng: Rng, size: int) -> None:
        self.rng, self.size = rng, size
        self.y, self.x = np.mgrid[0:size, 0:size].astype(np.float32) / size
        angle = rng.uniform(-0.6, 0.6) + rng.choice([0.0, np.pi / 2])
        self.frequency = rng.uniform(12, 18)
        phase = 2 * np.pi * self.frequency
        self.along = (phase * (self.x * np.cos(angle) + self.y * np.sin(angle))).astype(np.float32)
        self.across = (phase * (-self.x * np.sin(angle) + self.y * np.cos(angle))).astype(np.float32)

    def field(self, kind: str) -> Float:
        """The field of that name, shape (size, size)."""
        made: Float = np.asarray(getattr(self, kind)(), dtype=np.float32)
        return made

    def _grain(self) -> Float:
        half = self.rng.random((self.size // 2, self.size // 2), dtype=np.float32)
        return half.repeat(2, 0).repeat(2, 1)

    def plain(self) -> Float:
        """Nothing."""
        return np.zeros_like(self.x)

    def striped(self) -> Float:
        """Bars of equal width."""
        return np.sign(np.sin(self.along))

    def dotted(self) -> Float:
        """Round dots on a grid."""
        return np.where(np.sin(self.along) + np.sin(self.across) > 0.9, 1.0, -0.35)

    def checked(self) -> Float:
        """A chess board."""
        return np.sign(np.sin(self.along) * np.sin(self.across))

    def speckled(self) -> Float:
        """Scattered specks."""
        return np.where(self._grain() > 0.86, 1.0, -0.2)

    def wavy(self) -> Float:
        """Bars that undulate."""
        return np.sign(np.sin(self.across + 1.8 * np.sin(self.along * 0.3)))

    def sky(self) -> Float:
        """Soft clouds and a gradient."""
        return (noise(self.rng, self.size, 5) - 0.45) * 2 + 0.7 * (0.5 - self.y)

    def bricks(self) -> Float:
        """Rows of bricks with light mortar."""
        rows = self.rng.uniform(9, 13)
        column = self.x * rows / 2 + 0.5 * (np.floor(self.y * rows) % 2)
        return np.where(((self.y * rows) % 1 < 0.16) | (column % 1 < 0.08), 1.0, -0.25)

    def planks(self) -> Float:
        """Upright boards of different tones."""
        boards = self.rng.uniform(6, 10)
        tone = self.rng.uniform(-0.5, 0.5, 16)[np.floor(self.x * boards).astype(int) % 16]
        return np.where((self.x * boards) % 1 < 0.07, -1.2, tone)

    def grass(self) -> Float:
        """Upright blades."""
        blades = self.rng.random((self.size // 8, self.size // 2), dtype=np.float32)
        return (blades.repeat(8, 0).repeat(2, 1)[: self.size] * 2 - 1) * 0.8

    def sand(self) -> Float:
        """Fine grain over soft dunes."""
        return self._grain() * 0.9 - 0.45 + 0.8 * (noise(self.rng, self.size, 7) - 0.5)

    def water(self) -> Float:
        """Ripples that lie level."""
        bend = 0.35 * np.sin(2 * np.pi * self.rng.uniform(2, 4) * self.x)
        return np.asarray(0.8 * np.sin(2 * np.pi * (self.rng.uniform(9, 15) * self.y + bend)), np.float32)


def _blur(image: Float, radius: float) -> Float:
    """Gaussian blur of an (H, W) field in [0, 1]."""
    raw = Image.fromarray((image * 255).clip(0, 255).astype(np.uint8))
    return np.asarray(raw.filter(ImageFilter.GaussianBlur(radius)), dtype=np.float32) / np.float32(255)


def _edges(index: npt.NDArray[np.uint8], width: int) -> npt.NDArray[np.bool_]:
    """Where the index changes within ``width`` pixels to the right or below."""
    edge = np.zeros(index.shape, bool)
    edge[:, :-width] |= index[:, :-width] != index[:, width:]
    edge[:-width] |= index[:-width] != index[width:]
    return edge


def wobble(index: npt.NDArray[np.uint8], rng: Rng) -> npt.NDArray[np.uint8]:
    """The index map with hand-drawn contours: shifted by at most one output pixel."""
    size = len(index)
    y, x = np.mgrid[0:size, 0:size]
    dx, dy = (((noise(rng, size, 14) - 0.5) * 6).astype(int) for _ in range(2))
    return index[(y + dy).clip(0, size - 1), (x + dx).clip(0, size - 1)]


def render(
    index: npt.NDArray[np.uint8], materials: list[Material], style: str, rng: Rng
) -> npt.NDArray[np.uint8]:
    """Colours of an index map.

    Args:
        index: (2S, 2S) numbers of ``materials``.
        materials: what each number looks like.
        style: one of ``STYLES``.
        rng: where textures, light and brush strokes come from.

    Returns:
        RGB image of shape (S, S, 3).
    """
    size = len(index)
    textures = Textures(rng, size)
    kinds = sorted({m.texture for m in materials})
    base = np.array([PALETTE[m.colour] for m in materials], np.float32) / 255
    base *= np.array([m.shade for m in materials], np.float32)[:, None]
    thing = np.array([m.thing for m in materials])[index]
    kind = np.array([kinds.index(m.texture) for m in materials])
    stack = np.stack([textures.field(k) for k in kinds]).reshape(len(kinds), -1)
    texture = stack[kind[index].ravel(), np.arange(size * size)].reshape(size, size, 1)
    colour = base[index]
    # A texture lightens dark colours and darkens light ones, so that it shows on every colour.
    direction = np.where(base.mean(1) > 0.55, -1.0, 1.0).astype(np.float32)[index][..., None]
    strength = {"flat": 0.13, "shaded": 0.12, "sketch": 0.07, "painting": 0.1}[style]
    colour = colour + direction * strength * texture

    if style == "shaded":
        y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
        light = rng.uniform(0, 2 * np.pi)
        slope = (x - 0.5) * np.cos(light) + (y - 0.5) * np.sin(light)
        solid = (thing > 0).astype(np.float32)
        depth = _blur(solid, 9)
        parts = 1 - _blur(_edges(index, 2).astype(np.float32), 5)
        body = 0.42 + 0.5 * (depth - 0.4) + 0.35 * parts
        shadow = 1 - 0.35 * np.roll(_blur(solid, 6), (5, 5), (0, 1)) * (1 - solid)
        colour = colour * np.where(solid > 0, body, shadow)[..., None] * (1 + 0.5 * slope[..., None])
        gleam = np.where(solid > 0, (depth - 0.75).clip(0, 1) * (slope + 0.2).clip(0, 1), 0)
        colour = colour + 0.9 * gleam[..., None]
    elif style == "sketch":
        paper = 0.95 - 0.05 * noise(rng, size, 40)[..., None]
        tint = np.where(thing > 0, 0.55, 0.3)[..., None]
        y, x = np.mgrid[0:size, 0:size].astype(np.float32)
        hatch = (np.sin((x + y) * rng.uniform(0.5, 0.8)) > 0.35)[..., None]
        colour = paper * (1 - tint) + colour * tint
        colour = np.where(hatch & (thing > 0)[..., None], colour * 0.9, colour)
        colour = np.where(_edges(index, 3)[..., None], 0.14 + 0.1 * noise(rng, size, 30)[..., None], colour)
    elif style == "painting":
        strokes = np.stack([noise(rng, size, 22), noise(rng, size, 40), noise(rng, size, 9)], -1)
        warm = np.array([0.08, 0.0, -0.08], np.float32) * float(rng.uniform(-1, 1))
        colour = colour * (0.86 + 0.28 * strokes[..., :1]) + warm + 0.14 * (strokes - 0.5)

    small = colour.reshape(size // 2, 2, size // 2, 2, 3).mean((1, 3))
    return (small.clip(0, 1) * 255).round().astype(np.uint8)
