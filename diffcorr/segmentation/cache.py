"""What was read of an image, kept on disk: a sweep over settings then costs no pass of the model."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from diffcorr.errors import StoreError
from diffcorr.stores.files import writable_folder, write_atomic
from diffcorr.types import UInt8Image

log = logging.getLogger(__name__)
GIB = 2**30


class GraphCache:
    """Tensors by key in ``folder/<key>.safetensors``, until a number of bytes is reached.

    A full cache keeps what it has and takes no more: a sweep visits images in the same order each time, and
    throwing out the oldest would throw out what is needed next.

    Args:
        folder: where the tensors lie; created where missing.
        max_gib: bound on the folder's size, in GiB. One image at 512 x 512 takes 1/16 GiB.

    Raises:
        StoreError: the folder cannot be written, or the bound is not positive.
    """

    def __init__(self, folder: str | os.PathLike[str], max_gib: float = 8.0) -> None:
        if max_gib <= 0:
            raise StoreError(f"expected a cache of more than 0 GiB, found {max_gib:g}; cache=null keeps none")
        self.folder = writable_folder(folder)
        self.max_bytes = int(max_gib * GIB)
        self.num_bytes = sum(path.stat().st_size for path in self.folder.glob("[!.]*.safetensors"))
        self._told = False

    def get(self, key: str) -> Tensor | None:
        """The tensor of that key, or ``None`` where it is not kept or the file is damaged."""
        path = self.folder / f"{key}.safetensors"
        try:
            return load_file(path)["values"] if path.exists() else None
        except (SafetensorError, OSError, KeyError):
            return None

    def add(self, key: str, values: Tensor) -> None:
        """Keep a tensor, unless that would take the cache beyond its bound.

        Raises:
            StoreError: the file cannot be written.
        """
        if self.num_bytes + values.nbytes > self.max_bytes:
            if not self._told:
                log.info("cache %s holds %.1f GiB and takes no more", self.folder, self.num_bytes / GIB)
            self._told = True
            return
        path = self.folder / f"{key}.safetensors"
        old = path.stat().st_size if path.exists() else 0
        # a copy of its own: a view would bring the whole batch along
        write_atomic(path, lambda to: save_file({"values": values.cpu().clone()}, to))
        self.num_bytes += path.stat().st_size - old


def key_of(image: UInt8Image, settings: Mapping[str, object]) -> str:
    """Identity of what settings read of an image: hexadecimal, equal across runs.

    Args:
        image: (H, W, 3) uint8.
        settings: plain values.
    """
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=list).encode())
    digest.update(f"{image.shape}".encode() + image.tobytes())
    return digest.hexdigest()[:32]
