"""Noise levels of flow matching for timesteps of a diffusion, against numbers worked out by hand."""

import pytest
import torch

from diffcorr.backbones.mmdit import flow_time


@pytest.mark.parametrize(
    ("alpha", "expected"),
    [
        (0.5, 0.5),  # as much signal as noise
        (0.9, 0.25),  # a / (1 - a) = 9 = 3^2: three parts of signal, one of noise
        (0.1, 0.75),
        (16 / 17, 0.2),
        (1.0, 0.0),
        (0.0, 1.0),
    ],
)
def test_by_hand(alpha: float, expected: float) -> None:
    assert flow_time(alpha) == pytest.approx(expected, abs=1e-12)


def test_the_papers_timestep() -> None:
    """Step 8 of 50 is t = 140 of 1000 of Stable Diffusion's schedule: betas are squares of a line."""
    alpha = 1.0
    for step in range(141):
        root = 0.00085**0.5 + step / 999 * (0.012**0.5 - 0.00085**0.5)
        alpha *= 1 - root**2
    sigma = flow_time(alpha)
    assert (1 - sigma) ** 2 / sigma**2 == pytest.approx(alpha / (1 - alpha))
    assert sigma == pytest.approx(0.30244, abs=1e-5)


def test_ratio_is_that_of_the_diffusion_and_grows_with_time() -> None:
    alphas = torch.linspace(0.9999, 0.001, 50).tolist()
    sigmas = [flow_time(alpha) for alpha in alphas]
    assert sigmas == sorted(sigmas)
    for alpha, sigma in zip(alphas, sigmas, strict=True):
        assert (1 - sigma) ** 2 * (1 - alpha) == pytest.approx(sigma**2 * alpha)
