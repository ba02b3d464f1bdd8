"""The animals of PartWorld, each a function of a generator: limbs and proportions vary."""

from __future__ import annotations

import numpy as np

from diffcorr.data.partworld.shapes import Part, Polygon, Rng, Shape, curve, ellipse, limb, poly


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
