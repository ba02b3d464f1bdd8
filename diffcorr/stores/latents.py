"""Latents of crops on disk, shared by runs: a sweep over what comes after the encoder encodes once."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from diffcorr.errors import StoreError
from diffcorr.stores.files import writable_folder, write_atomic

Crop = tuple[int, int, bool]
"""(left, top, whether mirrored), in pixels of the image."""
GIB = 2**30


class LatentStore:
    """A file for each image and side of its crops, until a number of bytes is reached.

    An image is known by its pixels, so that data sets, splits and frames need no names here. A full store
    keeps what it has and takes no more: a sweep visits images in the same order each time, and throwing out
    the oldest would throw out what is needed next. Processes may share a folder; where two write a file at
    once, the crops of one of them are encoded again some day. What cannot be read counts as absent.

    Args:
        folder: where the files lie; created where missing.
        model: identity of what encodes: fingerprint, input size, precision.
        max_gib: bound on the folder's size, in GiB. A crop of 512 x 512 takes 64 KiB.

    Attributes:
        hits: crops that were there.
        misses: crops that were not.

    Raises:
        StoreError: the folder cannot be written, or the bound is not positive.
    """

    def __init__(self, folder: str | os.PathLike[str], model: str, max_gib: float = 4.0) -> None:
        if max_gib <= 0:
            raise StoreError(
                f"expected latents of more than 0 GiB, found {max_gib:g}: latents_root=null keeps none"
            )
        self.folder = writable_folder(folder)
        self.model = model
        self.max_bytes = int(max_gib * GIB)
        self.num_bytes = sum(path.stat().st_size for path in self.folder.glob("[!.]*.safetensors"))
        self.hits = self.misses = 0

    def key(self, image_CHW: Tensor, crop_pixels: int) -> str:
        """Identity of an image's crops: hexadecimal, equal across runs.

        The arithmetic counts too: what autocast encodes in half precision is not what fp32 encodes.
        """
        device = image_CHW.device.type
        half = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
        about = (self.model, device, image_CHW.dtype, half, tuple(image_CHW.shape), crop_pixels)
        digest = hashlib.sha256("\n".join(map(str, about)).encode())
        digest.update(image_CHW.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        return digest.hexdigest()[:32]

    def get(self, key: str, crops: Iterable[Crop]) -> dict[Crop, Tensor]:
        """Those of the crops that are there: latents (c, h, w) on the CPU."""
        wanted = {_name(crop): crop for crop in crops}
        kept = self._load(key)
        found = {crop: kept[name] for name, crop in wanted.items() if name in kept}
        self.hits += len(found)
        self.misses += len(wanted) - len(found)
        return found

    def add(self, key: str, latents: Iterable[tuple[Crop, Tensor]]) -> None:
        """Keep crops with their latents (c, h, w), unless that would take the store beyond its bound.

        Raises:
            StoreError: the file cannot be written.
        """
        # copies: a view would bring the whole batch along
        new = {
            _name(crop): latent.detach().cpu().clone(memory_format=torch.contiguous_format)
            for crop, latent in latents
        }
        if not new or self.num_bytes + sum(latent.nbytes for latent in new.values()) > self.max_bytes:
            return
        path = self.folder / f"{key}.safetensors"
        old = path.stat().st_size if path.exists() else 0
        merged = {**self._load(key), **new}
        write_atomic(path, lambda to: save_file(merged, to))
        self.num_bytes += path.stat().st_size - old

    def _load(self, key: str) -> dict[str, Tensor]:
        path = self.folder / f"{key}.safetensors"
        try:
            return load_file(path) if path.exists() else {}
        except (SafetensorError, OSError):
            return {}


def _name(crop: Crop) -> str:
    x, y, flip = crop
    return f"{x}-{y}-{int(flip)}"
