"""Segmentation masks on disk, one 16-bit PNG each: any image viewer opens them, any tool scores them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal
from urllib.parse import quote, unquote

import numpy as np
import numpy.typing as npt
from PIL import Image, PngImagePlugin, UnidentifiedImageError

from diffcorr.errors import StoreError
from diffcorr.stores.files import remove_drafts, set_aside, writable_folder, write_atomic

NO_SEGMENT = 65535
"""The pixel value that stands for segment -1 (no segment) in the files."""


class MaskStore:
    """Masks by (method, seed, image id), in ``folder/<method>/seed<seed>/<image id>.png``.

    Args:
        folder: where the masks lie; created where missing.
        on_duplicate: what adding a mask that is there already means: ``"error"`` refuses it,
            ``"replace"`` lets the last one win.

    Raises:
        StoreError: the folder cannot be written.
    """

    def __init__(
        self, folder: str | os.PathLike[str], on_duplicate: Literal["error", "replace"] = "error"
    ) -> None:
        self.folder = writable_folder(folder)
        self.on_duplicate = on_duplicate
        self._folders: set[Path] = set()  # known to be there

    def add(
        self, image_id: str, method: str, mask: npt.ArrayLike, seed: int = 0, config_hash: str = ""
    ) -> None:
        """Keep one mask.

        Args:
            image_id: identity of the image.
            method: name of the method.
            mask: (H, W) integers, segment ids 0..65534, or -1 for no segment.
            seed: seed of the run.
            config_hash: identity of the method's configuration, kept inside the file.

        Raises:
            StoreError: the mask is no (H, W) array of such integers, or is there already.
        """
        array = np.asarray(mask)
        if array.ndim != 2 or not np.issubdtype(array.dtype, np.integer):
            raise StoreError(f"expected a mask (H, W) of integers, found {array.dtype} {array.shape}")
        if array.size and not (array.min() >= -1 and array.max() < NO_SEGMENT):
            raise StoreError(
                f"expected segment ids -1..{NO_SEGMENT - 1}, found {array.min()}..{array.max()}: "
                "renumber them"
            )
        path = self._path(image_id, method, seed)
        if self.on_duplicate == "error" and path.exists():
            raise StoreError(
                f"expected each mask once, found {str(path)!r}: choose another folder, "
                'or on_duplicate="replace"'
            )
        if path.parent not in self._folders:
            remove_drafts(writable_folder(path.parent))
            self._folders.add(path.parent)
        image = Image.fromarray(np.where(array < 0, NO_SEGMENT, array).astype(np.uint16))
        text = PngImagePlugin.PngInfo()
        text.add_text("config_hash", config_hash)
        write_atomic(path, lambda to: image.save(to, format="PNG", pnginfo=text))

    def get(
        self, image_id: str, method: str, seed: int = 0, config_hash: str | None = None
    ) -> npt.NDArray[np.int64] | None:
        """The mask, (H, W) int64 with -1 for no segment, or ``None`` when it is not stored.

        Raises:
            StoreError: the file is damaged, or ``config_hash`` is given and the mask was made by
                another configuration.
        """
        path = self._path(image_id, method, seed)
        if not path.exists():
            return None
        try:
            with Image.open(path) as image:
                found = image.info.get("config_hash", "")
                array = np.asarray(image).astype(np.int64)
        except (UnidentifiedImageError, OSError, SyntaxError) as error:
            raise StoreError(
                f"expected a mask, found {str(path)!r} damaged: delete that file and predict again"
            ) from error
        if config_hash is not None and found != config_hash:
            raise StoreError(
                f"expected a mask of configuration {config_hash!r}, found one of {found!r} in {str(path)!r}: "
                "choose another folder, or delete the old masks"
            )
        return np.where(array == NO_SEGMENT, -1, array)

    def config_hash(self, image_id: str, method: str, seed: int = 0) -> str | None:
        """Identity of the configuration that made the mask, or ``None`` when no whole mask is stored.

        The file's checksums are compared; a damaged one is set aside (``damaged/``).
        """
        path = self._path(image_id, method, seed)
        try:
            with Image.open(path) as image:
                found = str(image.info.get("config_hash", ""))
                image.verify()
                return found
        except FileNotFoundError:
            return None
        except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
            set_aside(path, error)
            return None

    def image_ids(self, method: str, seed: int = 0) -> list[str]:
        """The images that have a mask of this method and seed, sorted."""
        folder = self._path("x", method, seed).parent
        return sorted(unquote(path.stem) for path in folder.glob("[!.]*.png"))

    def _path(self, image_id: str, method: str, seed: int) -> Path:
        # Ids may hold slashes and colons; quoted, they are one plain file name on every system. A
        # leading dot, which `quote` leaves, would hide the file.
        name = quote(image_id, safe="").replace(".", "%2E")
        return self.folder / quote(method, safe="") / f"seed{int(seed)}" / f"{name}.png"


class StoredMasks(Mapping[str, npt.NDArray[np.int64]]):
    """The masks of one method, seed and configuration by image id.

    Read one by one: those of a data set fill no memory.
    """

    def __init__(
        self, store: MaskStore, image_ids: Sequence[str], name: str, seed: int, config_hash: str
    ) -> None:
        self.store, self.image_ids, self._ids = store, image_ids, frozenset(image_ids)
        self.name, self.seed, self.config_hash = name, seed, config_hash

    def __getitem__(self, image_id: str) -> npt.NDArray[np.int64]:
        mask = self.store.get(image_id, self.name, self.seed, self.config_hash)
        if mask is None:
            raise KeyError(image_id)
        return mask

    def __contains__(self, image_id: object) -> bool:  # without reading the mask
        return image_id in self._ids

    def __iter__(self) -> Iterator[str]:
        return iter(self.image_ids)

    def __len__(self) -> int:
        return len(self.image_ids)

    @property
    def missing(self) -> list[str]:
        """Images that have no mask, or one made by another configuration."""
        return [
            image_id
            for image_id in self.image_ids
            if self.store.config_hash(image_id, self.name, self.seed) != self.config_hash
        ]

    @property
    def complete(self) -> bool:
        """Whether all of them are there, made by this configuration."""
        return not self.missing
