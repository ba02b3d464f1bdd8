"""What every source of features is, and how features are read and compared."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor

from diffcorr.errors import DiffcorrError
from diffcorr.types import UInt8Image


class FeatureSource(ABC):
    """Features (D, h, w) of images, on a grid of cells that covers the whole image.

    Args:
        side: images are stretched to this square, in pixels.
        prompt: text that goes with an image, for models that read one; ``{category}`` is replaced.
        cache_size: images whose features are kept.

    Raises:
        DiffcorrError: a prompt with another field than ``{category}``.
    """

    def __init__(self, side: int, prompt: str = "", cache_size: int = 32) -> None:
        try:
            prompt.format(category="")
        except (KeyError, IndexError, ValueError) as error:
            raise DiffcorrError(
                f"expected a prompt with no field but {{category}}, found {prompt!r}: change it"
            ) from error
        self.side, self.prompt, self.cache_size = side, prompt, cache_size
        self._cache: OrderedDict[tuple[str, str], Tensor] = OrderedDict()

    @property
    def uses_category(self) -> bool:
        """Whether an image's features depend on the category of its pair."""
        return self.prompt.format(category="a") != self.prompt.format(category="b")

    @torch.no_grad()
    def __call__(self, image: UInt8Image, key: str, category: str = "") -> Tensor:
        """Features (D, h, w), float32, of any scale.

        Args:
            image: RGB of any size.
            key: its identity, from which random numbers derive.
            category: of the pair, for the prompt.
        """
        about = (key, self.prompt.format(category=category))
        if about in self._cache:
            self._cache.move_to_end(about)
            return self._cache[about]
        features = self.compute(image, *about)
        self._cache[about] = features
        if len(self._cache) > self.cache_size:
            self._cache.popitem(last=False)
        return features

    @abstractmethod
    def compute(self, image: UInt8Image, key: str, prompt: str) -> Tensor:
        """The same, each time anew."""


def sample(features_Dhw: Tensor, points_N2: Tensor) -> Tensor:
    """Bilinear features (N, D) at points given as fractions of the image."""
    grid = (points_N2 * 2 - 1).view(1, 1, -1, 2)
    found = F.grid_sample(
        features_Dhw[None], grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    return found[0, :, 0].T


def cosine_maps(wanted_QD: Tensor, features_Dhw: Tensor, height: int, width: int, rows: int = 32) -> Tensor:
    """Cosines (Q, height, width) of each wanted feature with the features of an image.

    Features are interpolated to the pixels' centres a few rows at a time: all of them would take
    gigabytes.
    """
    xs, ys = ((torch.arange(n).to(features_Dhw) + 0.5) / n for n in (width, height))
    wanted_QD = F.normalize(wanted_QD, dim=1)
    strips = []
    for y in ys.split(rows):
        points = torch.stack(torch.meshgrid(xs, y, indexing="xy"), -1).view(-1, 2)
        strips.append(wanted_QD @ F.normalize(sample(features_Dhw, points), dim=1).T)
    return torch.cat(strips, 1).view(-1, height, width)
