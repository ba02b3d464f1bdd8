"""Captioned images, drawn or read once and kept at the size that a model trains on.

Training sees every image many times; drawing or decoding it each time would cost more than the
training step of a small model. A cache is one uint8 array on disk (memory-mapped, never pickled).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from diffcorr.data.partworld.dataset import CaptionedImage
from diffcorr.types import UInt8Image

log = logging.getLogger(__name__)


class CaptionedImages(Protocol):
    """Any data set of captioned pictures."""

    name: str
    split: str

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> CaptionedImage: ...


def square(image: UInt8Image, size: int) -> UInt8Image:
    """Centre crop to the short side, then area-averaged to (size, size, 3)."""
    height, width = image.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    crop = Image.fromarray(image[top : top + side, left : left + side])
    filtering = Image.Resampling.BOX if side % size == 0 else Image.Resampling.LANCZOS
    return np.asarray(crop.resize((size, size), filtering))


def _rows(data: CaptionedImages, size: int, start: int, stop: int) -> tuple[int, UInt8Image, list[str]]:
    samples = [data[i] for i in range(start, stop)]
    return start, np.stack([square(s["image"], size) for s in samples]), [s["caption"] for s in samples]


class ImageCache:
    """Images (N, S, S, 3) uint8 and captions of a data set, made on first use, re-used afterwards.

    Args:
        folder: where the cache lies.
        data: what is cached.
        image_size: side S in pixels.
        num_workers: processes that draw or decode.
    """

    CHUNK = 250

    def __init__(
        self, folder: str | Path, data: CaptionedImages, image_size: int, num_workers: int = 2
    ) -> None:
        key = {"name": data.name, "split": data.split, "num_images": len(data), "image_size": image_size}
        self.folder = Path(folder)
        done = self.folder / "captions.json"
        if not done.is_file() or json.loads(done.read_text())["key"] != key:
            self._build(data, image_size, num_workers, key)
        record = json.loads(done.read_text())
        self.captions: Sequence[str] = record["captions"]
        self.images: npt.NDArray[np.uint8] = np.load(
            self.folder / "images.npy", mmap_mode="r", allow_pickle=False
        )

    def _build(self, data: CaptionedImages, size: int, num_workers: int, key: dict[str, object]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        log.info("caching %d images of %s at %d pixels", len(data), data.name, size)
        images = np.lib.format.open_memmap(
            self.folder / "images.npy", mode="w+", dtype=np.uint8, shape=(len(data), size, size, 3)
        )
        captions: list[str] = [""] * len(data)
        starts = range(0, len(data), self.CHUNK)
        stops = [min(s + self.CHUNK, len(data)) for s in starts]
        # spawn: a forked child of a process that has run torch threads may hang
        with ProcessPoolExecutor(num_workers, mp_context=get_context("spawn")) as pool:
            for start, pixels, texts in pool.map(_rows, repeat(data), repeat(size), starts, stops):
                images[start : start + len(pixels)] = pixels
                captions[start : start + len(texts)] = texts
        images.flush()
        # written last: a cache without its captions is one that was cut off
        temporary = self.folder / "captions.json.part"
        temporary.write_text(json.dumps({"key": key, "captions": captions}))
        temporary.replace(self.folder / "captions.json")

    def __len__(self) -> int:
        return len(self.captions)
