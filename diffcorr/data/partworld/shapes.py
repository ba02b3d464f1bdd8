"""What PartWorld's things are made of: polygons, coloured parts and keypoints, facing right in a unit box.

Object coordinates: x right, y down, a thing fills about [-1, 1] x [-1, 1].
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Polygon = npt.NDArray[np.float64]  # (n, 2)
Rng = np.random.Generator


@dataclass(frozen=True)
class Part:
    """A coloured part: its word, its polygons in drawing order, and how dark it is drawn (0..1)."""

    word: str
    polygons: tuple[Polygon, ...]
    shade: float = 1.0


@dataclass(frozen=True)
class Shape:
    """One individual: parts from back to front, and keypoints by name.

    ``swaps`` pairs keypoints whose names say a side of the picture: a mirror image swaps them.
    """

    parts: tuple[Part, ...]
    keypoints: dict[str, tuple[float, float]]
    swaps: tuple[tuple[str, str], ...] = ()
    faces: bool = True  # has a facing direction worth a word in the caption


def ellipse(cx: float, cy: float, rx: float, ry: float, angle: float = 0.0, n: int = 28) -> Polygon:
    """An ellipse as a polygon; ``angle`` in degrees, clockwise on the screen."""
    t = np.linspace(0, 2 * np.pi, n, endpoint=False)
    a = np.deg2rad(angle)
    x, y = rx * np.cos(t), ry * np.sin(t)
    return np.stack([cx + x * np.cos(a) - y * np.sin(a), cy + x * np.sin(a) + y * np.cos(a)], 1)


def poly(*points: Sequence[float]) -> Polygon:
    """A polygon from its corners."""
    return np.asarray(points, dtype=np.float64)


def limb(points: Sequence[Sequence[float]] | Polygon, w0: float, w1: float) -> Polygon:
    """A tapering stroke along a polyline, ``w0`` wide at its start and ``w1`` at its end."""
    p = np.asarray(points, dtype=np.float64)
    direction = np.gradient(p, axis=0)
    normal = np.stack([-direction[:, 1], direction[:, 0]], 1)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True) + 1e-9
    width = np.linspace(w0, w1, len(p))[:, None] / 2
    return np.concatenate([p + normal * width, (p - normal * width)[::-1]])


def curve(p0: Sequence[float], p1: Sequence[float], p2: Sequence[float], n: int = 8) -> Polygon:
    """Points of a quadratic Bezier curve."""
    t = np.linspace(0, 1, n)[:, None]
    a, b, c = (np.asarray(p, dtype=np.float64) for p in (p0, p1, p2))
    return (1 - t) ** 2 * a + 2 * t * (1 - t) * b + t**2 * c


def polar(cx: float, cy: float, r: float, degrees: float) -> tuple[float, float]:
    """The point ``r`` away from (cx, cy); ``degrees`` from the x axis, clockwise on the screen."""
    a = np.deg2rad(degrees)
    return cx + r * float(np.cos(a)), cy + r * float(np.sin(a))
