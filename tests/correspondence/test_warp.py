"""Moving least squares against the problem that it solves, and where none is defined."""

import math

import numpy as np
import pytest
import torch

from diffcorr.correspondence.warp import moving_least_squares

RANDOM = np.random.default_rng(0)


def by_least_squares(v, p, q, deformation, falloff):
    """The map of one point, by the definition: minimise sum w |f(p) - q|^2 over all such maps f."""
    weights = [1 / np.hypot(*(v - a)) ** (2 * falloff) for a in p]
    rows, wanted = [], []
    for w, (x, y), (u, t) in zip(weights, p, q, strict=True):
        if deformation == "affine":  # unknowns a b c d e f: u = a x + b y + c, t = d x + e y + f
            rows += [np.sqrt(w) * np.array(r) for r in ([x, y, 1, 0, 0, 0], [0, 0, 0, x, y, 1])]
        else:  # unknowns a b c f: u = a x - b y + c, t = b x + a y + f
            rows += [np.sqrt(w) * np.array(r) for r in ([x, -y, 1, 0], [y, x, 0, 1])]
        wanted += [np.sqrt(w) * u, np.sqrt(w) * t]
    found = np.linalg.lstsq(np.array(rows), np.array(wanted), rcond=None)[0]
    if deformation == "affine":
        a, b, c, d, e, f = found
        return [a * v[0] + b * v[1] + c, d * v[0] + e * v[1] + f]
    a, b, c, f = found
    return [a * v[0] - b * v[1] + c, b * v[0] + a * v[1] + f]


@pytest.mark.parametrize("falloff", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("deformation", ["affine", "similarity"])
def test_the_best_weighted_map(deformation, falloff):
    p, q, v = (RANDOM.uniform(0, 100, (n, 2)) for n in (9, 9, 5))
    found = moving_least_squares(*map(torch.tensor, (v, p, q)), deformation, falloff)
    expected = [by_least_squares(point, p, q, deformation, falloff) for point in v]
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)


def test_maps_of_the_kind_are_kept():
    p, v = RANDOM.uniform(0, 500, (6, 2)), RANDOM.uniform(-200, 900, (7, 2))
    shear = np.array([[1.5, -0.25], [0.75, 0.5]])
    affine = lambda x: x @ shear + [30, -7]  # noqa: E731
    found = moving_least_squares(*map(torch.tensor, (v, p, affine(p))), "affine")
    np.testing.assert_allclose(found.numpy(), affine(v), rtol=1e-8)
    turn = 2.5 * np.array([[math.cos(0.7), math.sin(0.7)], [-math.sin(0.7), math.cos(0.7)]])
    similar = lambda x: x @ turn + [3, 4]  # noqa: E731
    for deformation in ("affine", "similarity"):
        found = moving_least_squares(*map(torch.tensor, (v, p, similar(p))), deformation)
        np.testing.assert_allclose(found.numpy(), similar(v), rtol=1e-8)


@pytest.mark.parametrize("deformation", ["affine", "similarity"])
def test_control_points_go_where_they_are_told(deformation):
    p, q = (torch.tensor(RANDOM.uniform(0, 100, (8, 2))) for _ in range(2))
    torch.testing.assert_close(moving_least_squares(p, p, q, deformation), q, rtol=0, atol=0)
    for near in (1e-3, 1e-6, 1e-9, 1e-12):
        found = moving_least_squares(p + near, p, q, deformation)
        torch.testing.assert_close(found, q, rtol=0, atol=300 * near + 1e-9)


def test_too_few_control_points_take_the_simpler_map():
    v = torch.tensor([[3.0, 5.0], [-2.0, 8.0]])
    one = moving_least_squares(v, torch.tensor([[1.0, 1.0]]), torch.tensor([[11.0, 4.0]]))
    torch.testing.assert_close(one, (v + torch.tensor([10.0, 3.0])).double())  # a translation
    # two, and several on a line: (x, y) -> (1 - 2 y, 2 + 2 x), a quarter turn at twice the size
    expected = torch.tensor([[1 - 10.0, 2 + 6.0], [1 - 16.0, 2 - 4.0]]).double()
    for p in ([[0.0, 0], [4, 0]], [[0.0, 0], [4, 0], [1, 0], [9, 0]], [[1.0, 1], [2, 2], [700, 700]]):
        p = torch.tensor(p)
        q = torch.stack([1 - 2 * p[:, 1], 2 + 2 * p[:, 0]], 1)
        torch.testing.assert_close(moving_least_squares(v, p, q), expected)
    same = torch.full((3, 2), 321.7)
    for q in (same, torch.tensor([[0.0, 0], [3, 0], [0, 3]])):
        found = moving_least_squares(v, same, q)
        torch.testing.assert_close(found, (v - 321.7 + q.mean(0)).double())


def test_nearly_collinear_points_do_not_fling_others_away():
    """A jitter of 1e-8 across the line is no second dimension."""
    x = torch.linspace(0, 100, 12, dtype=torch.float64)
    p = torch.stack([x, 50 + 1e-8 * torch.sin(7 * x)], 1)
    q = torch.stack([x, 50 + torch.cos(3 * x)], 1)
    found = moving_least_squares(torch.tensor([[50.0, 80.0]]), p, q)
    assert (found - torch.tensor([50.0, 80.0])).abs().max() < 10


def test_finite_whatever_the_points():
    generator = torch.Generator().manual_seed(0)
    for trial in range(300):
        k = int(torch.randint(1, 6, (), generator=generator))
        scale = 10.0 ** float(torch.randint(-6, 5, (), generator=generator))
        p, q = (torch.randint(0, 3, (k, 2), generator=generator) * scale for _ in range(2))
        v = torch.randint(0, 3, (4, 2), generator=generator) * scale + (trial % 3) * 1e-9
        for deformation in ("affine", "similarity"):
            for falloff in (0.3, 1.0, 30.0):
                found = moving_least_squares(v, p, q, deformation, falloff)
                assert found.isfinite().all(), (p, q, v)
