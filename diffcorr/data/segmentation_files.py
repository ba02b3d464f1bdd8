"""What data sets of images with a label map each, as files on disk, have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, NamedTuple

import numpy as np
import torch

from diffcorr.data.counts import check_count
from diffcorr.data.geometry import CropResize, image_size
from diffcorr.data.images import read_image
from diffcorr.data.labels import (
    IGNORED,
    LabelMap,
    centre_square,
    fit_to_picture,
    read_label_map,
    to_classes,
)
from diffcorr.data.pair_files import About
from diffcorr.errors import DataError, UnknownNameError
from diffcorr.types import SegmentationSample, UInt8Image


@dataclass(frozen=True)
class SegmentationAbout(About):
    """What is known of a published segmentation data set.

    Attributes:
        num_labelled: images of each split of the complete data set, with default options.
    """

    num_labelled: Mapping[str, int] = field(default_factory=dict)


class LabelledFile(NamedTuple):
    """One image of the index; without ``label`` it is for figures only."""

    image_id: str
    image: Path
    label: Path | None = None


class SegmentationFiles(ABC):
    """Images with a label map each; a data set says where they lie and what the ids mean.

    Args:
        root: folder of the data set, or its parent.
        split: one of ``splits``.
        num_images: the first so many (None: all).
        square: crop images and labels to the largest centred square and resize them to so many pixels,
            images bilinear without low-pass, labels by nearest neighbour, as the DiffSeg program prepares
            them; None keeps them as they are.
        must_exist: whether every file of the index has to be there.

    Attributes:
        files: the index, in its fixed order.
        notes: what is worth knowing of this copy, a line each.

    Raises:
        DataError: no such folder, another layout, a missing file, or nothing in the split.
        UnknownNameError: a split that there is not.
    """

    name: str = ""
    splits: ClassVar[tuple[str, ...]] = ("val", "train")
    about: ClassVar[SegmentationAbout]
    classes: Sequence[str] = ()
    background: int | None = None
    """The class of everything that is no object, where the data set has one."""
    table: ClassVar[Mapping[int, int]] = {}
    """Class of every stored id, -1 where it is ignored."""

    def __init__(
        self,
        root: str | Path,
        split: str = "val",
        num_images: int | None = None,
        square: int | None = None,
        must_exist: bool = True,
    ) -> None:
        if split not in self.splits:
            raise UnknownNameError(f"split of {self.name}", split, self.splits)
        check_count("num_images", num_images, least=1)
        check_count("square", square, least=1)
        self.root, self.split, self.square = Path(root).expanduser(), split, square
        self.notes: list[str] = []
        self.files = list(self._index())[:num_images]
        if not self.files:
            raise DataError(
                f"expected images in {self.root} ({self.about.title}, {split}), found none: check data.root "
                "and data.split"
            )
        if must_exist:
            self._check_files()

    @abstractmethod
    def _index(self) -> Iterator[LabelledFile]:
        """All images of the split in their fixed order, after what has to be found is found."""

    @classmethod
    @abstractmethod
    def available(cls, root: str | Path) -> list[str]:
        """The splits that are there."""

    @classmethod
    def for_check(cls, root: str | Path, split: str) -> SegmentationFiles:
        """The split with default options, missing files included."""
        return cls(root, split=split, must_exist=False)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> SegmentationSample:
        """The image, upright, and its label.

        Raises:
            DataError: the label map cannot be read, has another size, or an unknown id.
            ImageError: the image cannot be read.
        """
        file = self.files[index]
        image = read_image(file.image)
        label = self._label(file, image)
        if self.square is not None:
            image, label = _to_square(image, label, self.square)
        return {"image_id": file.image_id, "image": image, "label": label, "tags": self._tags(file)}

    def _label(self, file: LabelledFile, image: UInt8Image) -> LabelMap:
        if file.label is None:
            return np.full(image.shape[:2], IGNORED, dtype=np.int64)
        ids = fit_to_picture(read_label_map(file.label), image_size(image), file.label, file.image)
        return to_classes(ids, self.table, file.label)

    def _tags(self, file: LabelledFile) -> Mapping[str, object]:
        return {}

    def _check_files(self) -> None:
        for file in self.files:
            for kind, path in (("image", file.image), ("label map", file.label)):
                if path is not None and not path.is_file():
                    raise DataError(
                        f"expected the {kind} {path} of {self.name}, found no such file: complete the data "
                        f"set (what else is missing: diffcorr data check {self.name} {self.root})"
                    )


def _to_square(image: UInt8Image, label: LabelMap, side: int) -> tuple[UInt8Image, LabelMap]:
    height, width = label.shape
    short = min(height, width)
    crop = CropResize((width - short) // 2, (height - short) // 2, short, short, (side, side))
    pixels = crop.apply(torch.from_numpy(image).permute(2, 0, 1).float())
    rows, columns = centre_square(height, width, side)
    return pixels.round().byte().permute(1, 2, 0).contiguous().numpy(), label[rows[:, None], columns]


def find_layout(
    root: Path, inside: Sequence[str], layouts: Sequence[tuple[str, str]], title: str
) -> tuple[Path, Path, Path]:
    """The first of ``root`` and ``root/inside`` that has both folders of a layout.

    Args:
        root: the folder that the user names.
        inside: folders of it to look into, too.
        layouts: (folder of images, folder of label maps), as the data set's users keep them.
        title: of the data set, for the message.

    Returns:
        Base folder, folder of images, folder of label maps.

    Raises:
        DataError: there is no such pair of folders; says what was looked for.
    """
    if not root.exists():
        raise DataError(
            f"expected {title} in {root}, found no such folder: set data.root (how to get the data: "
            "diffcorr data list)"
        )
    for base in (root, *(root / name for name in inside)):
        for images, labels in layouts:
            if (base / images).is_dir() and (base / labels).is_dir():
                return base, base / images, base / labels
    wanted = " or ".join(f"{images} + {labels}" for images, labels in layouts)
    raise DataError(
        f"expected {title} in {root} as {wanted} (looked in {', '.join(['.', *inside])}), found no such "
        "layout: see diffcorr data list"
    )
