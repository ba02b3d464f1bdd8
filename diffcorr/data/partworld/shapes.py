"""The things of PartWorld: polygons, parts and keypoints, drawn facing right in a unit box.

Object coordinates: x right, y down, the thing fills about [-1, 1] x [-1, 1]. Each category is a
function of a random generator, because proportions and limbs vary from one individual to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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


def _polar(cx: float, cy: float, r: float, degrees: float) -> tuple[float, float]:
    a = np.deg2rad(degrees)
    return cx + r * float(np.cos(a)), cy + r * float(np.sin(a))


def fish(rng: Rng) -> Shape:
    """Side view: body, forked tail, two fins."""
    u = rng.uniform
    rx, ry = u(0.55, 0.68), u(0.28, 0.44)
    spread, back = u(0.28, 0.46), u(0.92, 1.05)
    bend = u(-0.12, 0.12)
    top, bottom = (-back, bend - spread), (-back, bend + spread)
    tail = poly((-rx + 0.14, -0.05), top, (-back + 0.2, bend), bottom, (-rx + 0.14, 0.05))
    height, lean = u(0.22, 0.36), u(0.0, 0.2)
    fin_tip = (-0.05 - lean, -ry - height + 0.08)
    dorsal = poly((0.25, -ry * 0.85), fin_tip, (-0.3, -ry * 0.8))
    belly_tip = (u(-0.1, 0.05) - lean, ry + u(0.14, 0.26))
    belly = poly((0.2, ry * 0.85), belly_tip, (-0.08, ry * 0.88))
    ex, ey, er = rx * 0.62, -ry * u(0.12, 0.3), u(0.075, 0.105)
    mouth = (rx * 0.97, ry * 0.12)
    parts = (
        Part("tail", (tail,)),
        Part("fin", (dorsal, belly)),
        Part("body", (ellipse(0, 0, rx, ry),)),
        Part("mouth", (ellipse(mouth[0] - 0.02, mouth[1], 0.09, 0.055),)),
        Part("eye", (ellipse(ex, ey, er, er),)),
    )
    keypoints = {
        "eye": (ex, ey),
        "mouth": mouth,
        "top_tail_tip": top,
        "bottom_tail_tip": bottom,
        "back_fin": fin_tip,
        "belly_fin": belly_tip,
    }
    return Shape(parts, keypoints)


def bird(rng: Rng) -> Shape:
    """Side view: body, head, beak, wing, tail, two legs."""
    u = rng.uniform
    rx, ry, tilt = u(0.44, 0.54), u(0.27, 0.36), u(-28, -8)
    hr = u(0.19, 0.25)
    hx, hy = u(0.4, 0.5), u(-0.56, -0.44)
    beak_tip = (hx + hr + u(0.2, 0.34), hy + u(0.0, 0.1))
    tail_tip = (-u(0.88, 1.02), u(0.08, 0.34))
    wing_tip = (-u(0.42, 0.62), u(-0.28, 0.12))
    swing = u(-0.12, 0.12)
    feet = [(-0.12 + swing, u(0.86, 0.98)), (0.2 - swing, u(0.86, 0.98))]
    legs = tuple(
        part
        for hip, foot in zip(((-0.04, 0.2), (0.12, 0.2)), feet, strict=True)
        for part in (
            limb((hip, foot), 0.08, 0.06),
            poly(foot, (foot[0] + 0.17, foot[1] + 0.03), (foot[0] - 0.06, foot[1] + 0.05)),
        )
    )
    ex, ey, er = hx + 0.06, hy - 0.04, u(0.055, 0.08)
    parts = (
        Part("legs", legs),
        Part(
            "tail",
            (
                poly(
                    (-0.28, -0.02),
                    (tail_tip[0], tail_tip[1] - 0.09),
                    (tail_tip[0] + 0.05, tail_tip[1] + 0.12),
                    (-0.22, 0.2),
                ),
            ),
        ),
        Part("body", (ellipse(0, 0.02, rx, ry, tilt), limb(((0.22, -0.1), (hx, hy)), 0.42, 0.3))),
        Part("beak", (poly((hx + hr * 0.6, hy - 0.1), beak_tip, (hx + hr * 0.6, hy + 0.12)),)),
        Part("head", (ellipse(hx, hy, hr, hr),)),
        Part("wing", (poly((0.2, -0.18), (0.16, 0.12), (-0.12, 0.17), wing_tip, (-0.1, -0.16)),)),
        Part("eye", (ellipse(ex, ey, er, er),)),
    )
    keypoints = {
        "eye": (ex, ey),
        "beak": beak_tip,
        "breast": (rx * 0.72, 0.06),
        "wing_tip": wing_tip,
        "tail": tail_tip,
        "rear_foot": feet[0],
        "front_foot": feet[1],
    }
    return Shape(parts, keypoints)


def cat(rng: Rng) -> Shape:
    """Front view, seated: head with two ears and eyes, body, two paws, tail at one side."""
    u = rng.uniform
    hr, hy = u(0.36, 0.44), u(-0.46, -0.38)
    hx = u(-0.08, 0.08)
    spread, height = u(0.62, 0.78), u(0.3, 0.42)
    ear = [(hx - hr * spread * 1.1, hy - hr * 0.7 - height), (hx + hr * spread * 1.1, hy - hr * 0.7 - height)]
    ears = (
        poly((hx - hr * 0.97, hy - hr * 0.2), ear[0], (hx - hr * 0.15, hy - hr * 0.85)),
        poly((hx + hr * 0.97, hy - hr * 0.2), ear[1], (hx + hr * 0.15, hy - hr * 0.85)),
    )
    width, bottom = u(0.34, 0.46), u(0.84, 0.95)
    body = np.concatenate(
        [
            curve((hx, hy), (-width * 1.2, 0.1), (-width, bottom)),
            curve((width, bottom), (width * 1.2, 0.1), (hx, hy)),
        ]
    )
    px, pr = u(0.17, 0.25), u(0.11, 0.15)
    gap, er = u(0.15, 0.19), u(0.075, 0.1)
    ey = hy - u(0.0, 0.06)
    tail_tip = (u(0.72, 0.92), u(-0.12, 0.4))
    tail = limb(curve((width * 0.7, bottom - 0.1), (u(0.75, 1.0), bottom), tail_tip), 0.15, 0.12)
    nose = (hx, hy + u(0.12, 0.17))
    parts = (
        Part("tail", (tail,)),
        Part("body", (body,)),
        Part("paws", (ellipse(-px, bottom, pr, pr * 0.75), ellipse(px, bottom, pr, pr * 0.75))),
        Part("ears", ears),
        Part("head", (ellipse(hx, hy, hr, hr * 0.88),)),
        Part("eyes", (ellipse(hx - gap, ey, er, er), ellipse(hx + gap, ey, er, er))),
        Part(
            "nose",
            (
                poly(
                    (nose[0] - 0.08, nose[1] - 0.05),
                    (nose[0] + 0.08, nose[1] - 0.05),
                    (nose[0], nose[1] + 0.07),
                ),
            ),
        ),
    )
    keypoints = {
        "left_ear": ear[0],
        "right_ear": ear[1],
        "left_eye": (hx - gap, ey),
        "right_eye": (hx + gap, ey),
        "nose": nose,
        "left_paw": (-px, bottom),
        "right_paw": (px, bottom),
        "tail": tail_tip,
    }
    swaps = (("left_ear", "right_ear"), ("left_eye", "right_eye"), ("left_paw", "right_paw"))
    return Shape(parts, keypoints, swaps, faces=False)


def horse(rng: Rng) -> Shape:
    """Side view: body with saddle, neck with mane, head, tail, four legs."""
    u = rng.uniform
    rx, ry = u(0.5, 0.58), u(0.22, 0.28)
    hx, hy = u(0.62, 0.76), u(-0.66, -0.5)
    drop = u(0.12, 0.26)
    nose = (hx + u(0.2, 0.28), hy + drop)
    step_f, step_r = u(-0.16, 0.16), u(-0.16, 0.16)
    ground = u(0.86, 0.96)
    front, rear = (0.36 + step_f, ground), (-0.38 + step_r, ground)
    far_front, far_rear = (0.36 - step_f - 0.08, ground - 0.06), (-0.38 - step_r + 0.08, ground - 0.06)

    def leg(hip_x: float, hoof: tuple[float, float]) -> Polygon:
        knee = ((hip_x + hoof[0]) / 2 + 0.03, 0.5)
        return limb(((hip_x, 0.1), knee, hoof), 0.19, 0.11)

    def hoof(p: tuple[float, float]) -> Polygon:
        return poly(
            (p[0] - 0.08, p[1] - 0.05),
            (p[0] + 0.08, p[1] - 0.05),
            (p[0] + 0.1, p[1] + 0.06),
            (p[0] - 0.09, p[1] + 0.06),
        )

    tail_tip = (-u(0.78, 0.95), u(0.25, 0.5))
    ear = (hx - u(0.06, 0.12), hy - u(0.24, 0.32))
    eye = (hx + 0.02, hy - 0.03)
    parts = (
        Part("legs", (leg(0.3, far_front), leg(-0.32, far_rear)), 0.7),
        Part("hooves", (hoof(far_front), hoof(far_rear)), 0.7),
        Part("tail", (limb(curve((-rx + 0.08, -0.05), (-rx - 0.25, -0.12), tail_tip), 0.12, 0.2),)),
        Part("legs", (leg(0.36, front), leg(-0.38, rear))),
        Part("hooves", (hoof(front), hoof(rear))),
        Part("body", (ellipse(0, 0, rx, ry), limb(((0.34, 0.02), (hx - 0.04, hy + 0.02)), 0.4, 0.24))),
        Part("mane", (limb(((hx - 0.12, hy - 0.16), (0.38, -0.3), (0.18, -0.2)), 0.12, 0.14),)),
        Part(
            "head",
            (
                limb(((hx - 0.08, hy - 0.06), nose), 0.26, 0.16),
                poly((hx - 0.14, hy - 0.1), ear, (hx + 0.03, hy - 0.12)),
                ellipse(*nose, 0.09, 0.09),
            ),
        ),
        Part("saddle", (poly((-0.2, -ry - 0.07), (0.16, -ry - 0.05), (0.12, 0.06), (-0.16, 0.06)),)),
        Part("eye", (ellipse(*eye, 0.06, 0.06),)),
    )
    keypoints = {
        "eye": eye,
        "nose": nose,
        "ear": ear,
        "saddle": (-0.02, -ry * 0.55),
        "tail": tail_tip,
        "front_hoof": front,
        "rear_hoof": rear,
    }
    return Shape(parts, keypoints)


def _wheel(cx: float, cy: float, r: float) -> tuple[Polygon, Polygon]:
    return ellipse(cx, cy, r, r), ellipse(cx, cy, r * 0.45, r * 0.45)


def car(rng: Rng) -> Shape:
    """Side view: body, cabin with two windows, two wheels, lights."""
    u = rng.uniform
    length, top, deck = u(0.86, 0.98), u(-0.52, -0.38), u(-0.1, 0.0)
    floor, r = u(0.3, 0.38), u(0.19, 0.25)
    c0, c1, slant_f, slant_r = -u(0.5, 0.66), u(0.32, 0.46), u(0.12, 0.26), u(0.06, 0.2)
    nose = u(0.02, 0.12)
    body = poly(
        (-length, deck + 0.04), (c1, deck), (length - 0.05, deck + nose), (length, floor), (-length, floor)
    )
    cabin = poly((c0, deck + 0.02), (c0 + slant_r, top), (c1 - slant_f, top), (c1, deck + 0.02))
    middle = (c0 + c1) / 2 - 0.03
    y0, y1 = top + 0.08, deck - 0.01
    rear_w = poly((c0 + 0.09, y1), (c0 + slant_r + 0.05, y0), (middle - 0.03, y0), (middle - 0.03, y1))
    front_w = poly((middle + 0.04, y1), (middle + 0.04, y0), (c1 - slant_f - 0.05, y0), (c1 - 0.09, y1))
    wx = u(0.48, 0.58)
    rear, front = _wheel(-wx, floor, r), _wheel(wx, floor, r)
    light_y = deck + nose + 0.13
    parts = (
        Part("roof", (cabin,)),
        Part("body", (body,)),
        Part("windows", (rear_w, front_w)),
        Part(
            "lights",
            (ellipse(length - 0.06, light_y, 0.07, 0.09), ellipse(-length + 0.05, light_y, 0.06, 0.09)),
        ),
        Part("wheels", (rear[0], front[0])),
        Part("hubs", (rear[1], front[1])),
    )
    keypoints = {
        "front_wheel": (wx, floor),
        "rear_wheel": (-wx, floor),
        "front_window": tuple(front_w.mean(0)),
        "rear_window": tuple(rear_w.mean(0)),
        "headlight": (length - 0.06, light_y),
        "tail_light": (-length + 0.05, light_y),
        "roof": ((c0 + slant_r + c1 - slant_f) / 2, top + 0.03),
    }
    return Shape(parts, keypoints)


def truck(rng: Rng) -> Shape:
    """Side view: cab with a window in front of a tall cargo box, two wheels."""
    u = rng.uniform
    box_top, cab_top, floor = -u(0.5, 0.66), -u(0.16, 0.36), u(0.36, 0.44)
    split, length, r = u(0.26, 0.38), u(0.88, 0.98), u(0.18, 0.23)
    slant = u(0.1, 0.22)
    box = poly(
        (-length, box_top), (split - 0.04, box_top), (split - 0.04, floor - 0.06), (-length, floor - 0.06)
    )
    cab = poly((split, cab_top), (length - slant, cab_top), (length, 0.08), (length, floor), (split, floor))
    window = poly(
        (split + 0.12, cab_top + 0.08),
        (length - slant - 0.02, cab_top + 0.08),
        (length - 0.08, 0.06),
        (split + 0.12, 0.06),
    )
    rear_x, front_x = -u(0.5, 0.64), u(0.56, 0.66)
    rear, front = _wheel(rear_x, floor + 0.04, r), _wheel(front_x, floor + 0.04, r)
    pipe = (split + 0.04, cab_top - u(0.14, 0.26))
    light = (length - 0.06, floor - 0.13)
    parts = (
        Part(
            "pipe",
            (
                poly(
                    (split, cab_top + 0.04),
                    (split, pipe[1]),
                    (split + 0.1, pipe[1]),
                    (split + 0.1, cab_top + 0.04),
                ),
            ),
        ),
        Part("cargo", (box,)),
        Part(
            "cab",
            (
                cab,
                poly(
                    (-length + 0.05, floor - 0.08),
                    (split, floor - 0.08),
                    (split, floor),
                    (-length + 0.05, floor),
                ),
            ),
        ),
        Part("window", (window,)),
        Part("lights", (ellipse(*light, 0.07, 0.07),)),
        Part("wheels", (rear[0], front[0])),
        Part("hubs", (rear[1], front[1])),
    )
    keypoints = {
        "front_wheel": (front_x, floor + 0.04),
        "rear_wheel": (rear_x, floor + 0.04),
        "window": tuple(window.mean(0)),
        "headlight": light,
        "pipe": pipe,
        "cargo_front_corner": (split - 0.06, box_top + 0.03),
        "cargo_rear_corner": (-length + 0.03, box_top + 0.03),
    }
    return Shape(parts, keypoints)


def house(rng: Rng) -> Shape:
    """Front view: walls, gable roof with chimney, door, two windows."""
    u = rng.uniform
    half, eave, bottom = u(0.56, 0.72), u(-0.16, 0.02), u(0.78, 0.9)
    peak = (u(-0.08, 0.08), -u(0.72, 0.95))
    over = u(0.1, 0.2)
    left, right = (-half - over, eave), (half + over, eave)
    cx, ctop = u(0.32, 0.46), -u(0.74, 0.92)
    dx, dw, dtop = u(-0.08, 0.08), u(0.12, 0.16), u(0.26, 0.38)
    wx, wy, ws = half * u(0.58, 0.66), eave + u(0.26, 0.34), u(0.11, 0.15)

    def square(x: float, y: float, s: float) -> Polygon:
        return poly((x - s, y - s), (x + s, y - s), (x + s, y + s), (x - s, y + s))

    parts = (
        Part(
            "chimney",
            (poly((cx - 0.09, ctop), (cx + 0.09, ctop), (cx + 0.09, eave - 0.1), (cx - 0.09, eave - 0.1)),),
        ),
        Part("walls", (poly((-half, eave - 0.03), (half, eave - 0.03), (half, bottom), (-half, bottom)),)),
        Part("roof", (poly(left, peak, right),)),
        Part("windows", (square(-wx, wy, ws), square(wx, wy, ws))),
        Part("door", (poly((dx - dw, dtop), (dx + dw, dtop), (dx + dw, bottom), (dx - dw, bottom)),)),
    )
    keypoints = {
        "left_window": (-wx, wy),
        "right_window": (wx, wy),
        "door": (dx, (dtop + bottom) / 2),
        "chimney": (cx, ctop + 0.03),
        "roof_peak": peak,
        "left_eave": left,
        "right_eave": right,
    }
    swaps = (("left_window", "right_window"), ("left_eave", "right_eave"))
    return Shape(parts, keypoints, swaps, faces=False)


def flower(rng: Rng) -> Shape:
    """A potted flower: five petals round a centre, stem, two leaves, pot."""
    u = rng.uniform
    cx, cy = u(-0.16, 0.16), u(-0.52, -0.42)
    reach, pw = u(0.26, 0.32), u(0.14, 0.19)
    angles = [-90 + k * 72 for k in range(5)]
    petals = tuple(ellipse(*_polar(cx, cy, reach, a), 0.2, pw, a) for a in angles)
    pot_top, pot_w, bottom = u(0.5, 0.58), u(0.3, 0.4), u(0.92, 1.0)
    stem = curve((0, pot_top + 0.05), (u(-0.1, 0.1), 0.15), (cx, cy))
    node = stem[3]
    droop_l, droop_r = u(-0.22, 0.1), u(-0.22, 0.1)
    left = (node[0] - u(0.46, 0.58), node[1] + droop_l)
    right = (node[0] + u(0.46, 0.58), node[1] + droop_r)

    def leaf(tip: tuple[float, float]) -> Polygon:
        middle = ((node[0] + tip[0]) / 2, (node[1] + tip[1]) / 2)
        return poly(node, (middle[0], middle[1] - 0.13), tip, (middle[0], middle[1] + 0.13))

    r = u(0.14, 0.18)
    parts = (
        Part("stem", (limb(stem, 0.08, 0.07),)),
        Part("leaves", (leaf(left), leaf(right))),
        Part("petals", petals),
        Part("center", (ellipse(cx, cy, r, r),)),
        Part(
            "pot", (poly((-pot_w, pot_top), (pot_w, pot_top), (pot_w * 0.7, bottom), (-pot_w * 0.7, bottom)),)
        ),
    )
    keypoints = {
        "center": (cx, cy),
        "top_petal": _polar(cx, cy, reach + 0.08, angles[0]),
        "left_petal": _polar(cx, cy, reach + 0.08, angles[4]),
        "right_petal": _polar(cx, cy, reach + 0.08, angles[1]),
        "left_leaf": left,
        "right_leaf": right,
        "pot": (0.0, (pot_top + bottom) / 2),
    }
    swaps = (("left_petal", "right_petal"), ("left_leaf", "right_leaf"))
    return Shape(parts, keypoints, swaps, faces=False)


def teapot(rng: Rng) -> Shape:
    """Side view: belly, spout in front, handle behind, lid with a knob, base."""
    u = rng.uniform
    rx, ry, cy = u(0.48, 0.58), u(0.4, 0.5), 0.12
    spout = (u(0.88, 1.0), u(-0.36, -0.16))
    back, lift = -u(0.92, 1.04), u(-0.12, 0.1)
    handle = limb(
        np.concatenate(
            [
                curve((-rx * 0.8, -0.18), (back, -0.3 + lift), (back + 0.06, 0.1 + lift)),
                curve((back + 0.06, 0.1 + lift), (back + 0.1, 0.42), (-rx * 0.75, 0.34))[1:],
            ]
        ),
        0.12,
        0.12,
    )
    lid_y, lid_w = cy - ry * 0.86, u(0.24, 0.34)
    knob = (0.0, lid_y - u(0.2, 0.26))
    foot_w, foot_y = u(0.26, 0.36), cy + ry
    parts = (
        Part("handle", (handle,)),
        Part("spout", (limb(((rx * 0.55, 0.22), (rx * 1.15, 0.08), spout), 0.36, 0.13),)),
        Part(
            "base",
            (
                poly(
                    (-foot_w, foot_y - 0.06),
                    (foot_w, foot_y - 0.06),
                    (foot_w + 0.06, foot_y + 0.09),
                    (-foot_w - 0.06, foot_y + 0.09),
                ),
            ),
        ),
        Part("body", (ellipse(0, cy, rx, ry),)),
        Part("lid", (ellipse(0, lid_y, lid_w, 0.13),)),
        Part("knob", (ellipse(*knob, 0.1, 0.1),)),
    )
    keypoints = {
        "spout": spout,
        "handle": (back + 0.04, lift + 0.02),
        "knob": knob,
        "belly": (0.0, cy + 0.06),
        "front_base": (foot_w, foot_y + 0.03),
        "rear_base": (-foot_w, foot_y + 0.03),
    }
    return Shape(parts, keypoints)


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
