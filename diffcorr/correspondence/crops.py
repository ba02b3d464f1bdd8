"""Square crops that keep a point inside, and their latents."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from diffcorr.backbones.base import Backbone
from diffcorr.data.geometry import CropResize
from diffcorr.errors import DiffcorrError
from diffcorr.memory import Batches

ENCODE_BATCH = 16  # crops that the autoencoder takes at once
BANK_BATCH = 4  # of a bank, whose batches are always full


class Crop(NamedTuple):
    """Left, top and whether it is mirrored."""

    x: int
    y: int
    flip: bool = False


def crop_side(side: int, crop: float) -> int:
    """Whole pixels of a crop of fraction ``crop`` of an image of ``side``."""
    return max(1, int(side * crop))


def crop_bounds(
    point: tuple[float, float], side: int, crop: int, margin: float
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Smallest and largest (left, top) of crops that keep ``point`` off their border.

    The point keeps ``margin`` x ``crop`` pixels to the crop's border, except where the image's own
    border forbids it: no crop leaves the image.
    """
    room, safe = side - crop, int(crop * margin)
    low = tuple(int(min(max(0.0, v - crop + safe), room)) for v in point)
    high = tuple(int(min(max(0.0, v - safe), room)) for v in point)
    return (low[0], low[1]), (high[0], high[1])


def bank_positions(side: int, crop: int, size: int) -> Tensor:
    """Lefts (or tops) of a square grid of at most ``size`` crops, both borders included.

    Raises:
        DiffcorrError: so few crops that they do not cover the image.
    """
    room = side - crop
    count = min(room + 1, int(size**0.5))
    positions = torch.linspace(0, room, count).round().long() if count > 1 else torch.zeros(1).long()
    if max([*positions.diff().tolist(), room - int(positions[-1])]) > crop:
        raise DiffcorrError(f"expected a bank whose crops cover the image, found {size} crops: use more")
    return positions


def snap(crop: Crop, point: tuple[float, float] | None, crop_pixels: int, positions: Tensor) -> Crop:
    """The crop of the bank nearest to ``crop`` that shows ``point``, if it has to show one."""

    def nearest(value: int, at: float | None) -> int:
        fit = positions
        if at is not None:
            fit = fit[(fit <= at) & (at <= fit + crop_pixels)]
        return int(fit[(fit - value).abs().argmin()])

    x, y = point if point is not None else (None, None)
    return Crop(nearest(crop.x, x), nearest(crop.y, y), crop.flip)


def encode_crops(
    backbone: Backbone, image_CHW: Tensor, crops: Iterable[Crop], crop_pixels: int, batches: Batches
) -> list[Tensor]:
    """Latents (c, h, w) of crops of one image, resized to the backbone's input.

    Bilinear; low-passed only where the crop shrinks, as the authors' enlarged crops are not.
    """
    out = (backbone.image_size, backbone.image_size)
    shrinks = crop_pixels > backbone.image_size
    pending = list(crops)

    def encode(part: slice) -> list[Tensor]:
        images = []
        for x, y, flip in pending[part]:
            pixels = CropResize(x, y, crop_pixels, crop_pixels, out).apply(image_CHW, antialias=shrinks)
            images.append(pixels.flip(-1) if flip else pixels)
        with torch.no_grad():
            return list(backbone.encode(torch.stack(images)).unbind())

    return [latent for latents in batches.map(len(pending), encode) for latent in latents]


class LatentBank:
    """Latents of crops, each encoded once, for the images in use.

    Args:
        backbone: encodes; where it has a ``latent_store``, crops are kept there for other runs too.
        crop_pixels: side of the crops.
        keep: whether they lie on a grid, so that other runs will ask for the same.
    """

    def __init__(self, backbone: Backbone, crop_pixels: int, keep: bool = True) -> None:
        self._backbone, self._crop_pixels = backbone, crop_pixels
        self._store = backbone.latent_store if keep else None
        self._batches = Batches(BANK_BATCH)
        self._latents: dict[str, dict[Crop, Tensor]] = {}

    def require(self, images: Mapping[str, Tensor], crops: Mapping[str, set[Crop]]) -> None:
        """Encode what is not there yet, and forget all images but these."""
        self._latents = {key: self._latents.get(key, {}) for key in crops}
        for key, wanted in crops.items():
            self.add(key, images[key], wanted)

    def add(self, key: str, image_CHW: Tensor, crops: set[Crop]) -> None:
        """Encode what is not there yet of one image."""
        kept = self._latents.setdefault(key, {})
        missing = crops - kept.keys()
        if self._store is None or not missing:
            kept.update(self._encode(image_CHW, missing))
            return
        name = self._store.key(image_CHW, self._crop_pixels)
        stored = self._store.get(name, missing)
        kept.update({Crop(*crop): latent.to(image_CHW.device) for crop, latent in stored.items()})
        encoded = self._encode(image_CHW, missing - stored.keys())
        self._store.add(name, encoded.items())
        kept.update(encoded)

    def _encode(self, image_CHW: Tensor, crops: set[Crop]) -> dict[Crop, Tensor]:
        # In batches of one size, the last crop repeated: to the last bit a latent then depends on its crop
        # alone, not on what was asked for beside it, by another run or in another process.
        pending = sorted(crops)
        padded = pending + pending[-1:] * (-len(pending) % self._batches.size)
        found = encode_crops(self._backbone, image_CHW, padded, self._crop_pixels, self._batches)
        return dict(zip(padded, found, strict=True))

    def __getitem__(self, key: tuple[str, Crop]) -> Tensor:
        image, crop = key
        return self._latents[image][crop]
