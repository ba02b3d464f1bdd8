"""Where the random numbers of a query come from: its own generator, or a record."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import torch
from torch import Tensor

from diffcorr.errors import UnknownNameError

Noise = Literal["gaussian", "uniform"]


class Draws(Protocol):
    """The random numbers of one item; steps are asked for in order 0, 1, 2, ..."""

    def init(self, shape: tuple[int, ...]) -> Tensor:
        """Standard normal numbers for the initial embedding."""

    def crop(self, step: int, low: tuple[int, int], high: tuple[int, int]) -> tuple[int, int]:
        """Left and top of a crop, uniform over whole pixels, bounds included."""

    def pick(self, step: int, count: int) -> int:
        """One of ``count`` items that share a prompt: the crop is drawn around it."""

    def flip(self, step: int, probability: float) -> bool:
        """Whether the crop is mirrored."""

    def noise(self, step: int, shape: tuple[int, ...], kind: Noise) -> Tensor:
        """Noise of one latent."""


class SeededDraws:
    """Random numbers that depend on ``key`` alone: not on the device, the pack or the order of items.

    Each purpose has a generator of its own, so that asking for one never shifts another.
    """

    def __init__(self, *key: object) -> None:
        self._key = "\n".join(map(str, key))
        self._generators: dict[str, torch.Generator] = {}

    def _generator(self, purpose: str) -> torch.Generator:
        if purpose not in self._generators:
            digest = hashlib.sha256(f"{self._key}\n{purpose}".encode()).digest()
            seed = int.from_bytes(digest[:8], "big") >> 1
            self._generators[purpose] = torch.Generator().manual_seed(seed)
        return self._generators[purpose]

    def init(self, shape: tuple[int, ...]) -> Tensor:
        """Standard normal, fp32."""
        return torch.randn(shape, generator=self._generator("init"))

    def crop(self, step: int, low: tuple[int, int], high: tuple[int, int]) -> tuple[int, int]:
        """Uniform over the whole pixels low..high."""
        generator = self._generator("crop")
        x, y = (int(torch.randint(a, b + 1, (), generator=generator)) for a, b in zip(low, high, strict=True))
        return x, y

    def pick(self, step: int, count: int) -> int:
        """Uniform over 0..count - 1."""
        return int(torch.randint(0, count, (), generator=self._generator("pick")))

    def flip(self, step: int, probability: float) -> bool:
        """True with that probability."""
        return bool(torch.rand((), generator=self._generator("flip")) < probability)

    def noise(self, step: int, shape: tuple[int, ...], kind: Noise) -> Tensor:
        """Standard normal, or uniform in [0, 1) as in the authors' program; fp32."""
        if kind not in ("gaussian", "uniform"):
            raise UnknownNameError("noise", kind, ["gaussian", "uniform"])
        draw = torch.randn if kind == "gaussian" else torch.rand
        return draw(shape, generator=self._generator("noise"))


@dataclass(frozen=True)
class RecordedDraws:
    """Random numbers of another run, to repeat it exactly.

    Args:
        crop_xy: (steps, 2) left and top.
        noises: (steps, c, h, w).
        initial: (P, D), where a fit starts.
        flips: (steps,), none mirrored by default.
    """

    crop_xy: Tensor
    noises: Tensor
    initial: Tensor | None = None
    flips: Sequence[bool] = field(default=())

    def init(self, shape: tuple[int, ...]) -> Tensor:
        """The recorded start."""
        assert self.initial is not None
        assert tuple(self.initial.shape) == tuple(shape)
        return self.initial

    def crop(self, step: int, low: tuple[int, int], high: tuple[int, int]) -> tuple[int, int]:
        """The recorded crop, whatever the bounds."""
        x, y = self.crop_xy[step].tolist()
        return x, y

    def pick(self, step: int, count: int) -> int:
        """Nothing is recorded of shared prompts: the items in turn."""
        return step % count

    def flip(self, step: int, probability: float) -> bool:
        """The recorded mirroring."""
        return bool(self.flips[step]) if self.flips else False

    def noise(self, step: int, shape: tuple[int, ...], kind: Noise) -> Tensor:
        """The recorded noise."""
        assert tuple(self.noises[step].shape) == tuple(shape)
        return self.noises[step]
