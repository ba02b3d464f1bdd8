"""The other things of PartWorld, each a function of a generator: proportions vary."""

from __future__ import annotations

import numpy as np

from diffcorr.data.partworld.shapes import Part, Polygon, Rng, Shape, curve, ellipse, limb, polar, poly


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
    petals = tuple(ellipse(*polar(cx, cy, reach, a), 0.2, pw, a) for a in angles)
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
        "top_petal": polar(cx, cy, reach + 0.08, angles[0]),
        "left_petal": polar(cx, cy, reach + 0.08, angles[4]),
        "right_petal": polar(cx, cy, reach + 0.08, angles[1]),
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
