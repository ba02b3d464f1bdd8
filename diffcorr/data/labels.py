"""Label maps on disk: one id a pixel, turned like their picture, translated into classes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, UnidentifiedImageError

from diffcorr.errors import DataError
from diffcorr.types import Size

LabelMap = npt.NDArray[np.int64]
"""Ids or classes, shape (H, W)."""

IGNORED = -1
"""The class of pixels that are not scored."""

_ONE_CHANNEL = ("L", "P", "1", "I", "I;16", "I;16L", "I;16B")
_TURNS = {
    5: lambda ids: ids.T,
    6: lambda ids: np.rot90(ids, -1),
    7: lambda ids: np.rot90(ids, 2).T,
    8: lambda ids: np.rot90(ids),
}
"""What the EXIF orientations do under which width and height change places."""


def read_label_map(path: str | Path) -> LabelMap:
    """The ids of a label map as stored; of a picture with a palette the indices, not the colours.

    Raises:
        DataError: no such file, unreadable, or several channels.
    """
    try:
        with Image.open(path) as picture:
            if picture.mode not in _ONE_CHANNEL:
                raise DataError(
                    f"expected one id a pixel in the label map {path}, found a picture of mode "
                    f"{picture.mode}: take the data set's file of ids, or turn colours into ids"
                )
            return np.asarray(picture).astype(np.int64)
    except FileNotFoundError:
        raise DataError(f"expected a label map, found no file at {path}; check the path") from None
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(
            f"expected a readable label map at {path}, found {error}; replace the file"
        ) from error


def orientation(path: str | Path) -> int:
    """The EXIF orientation of a picture, 1 where it has none (Exif 2.3, tag 0x0112)."""
    with Image.open(path) as picture:
        return int(picture.getexif().get(ExifTags.Base.Orientation, 1))


def fit_to_picture(ids: LabelMap, size: Size, path: str | Path, image_path: str | Path) -> LabelMap:
    """The label map in the pixels of its upright picture.

    Pictures are turned upright by their EXIF flag. Published label maps were drawn on the pixels as stored:
    one that has the stored size is turned with its picture. Where the size does not tell (a picture upside
    down, mirrored, or as wide as high), the map is taken to mean the upright picture.

    Args:
        ids: (H, W) as stored.
        size: (width, height) of the upright picture.
        path: of the label map, for the message.
        image_path: of the picture.

    Raises:
        DataError: another size.
    """
    width, height = size
    if ids.shape == (height, width):
        return ids
    if ids.shape == (width, height) and (turn := _TURNS.get(orientation(image_path))):
        return np.ascontiguousarray(turn(ids))
    raise DataError(
        f"expected a label map of {width}x{height} like its image {image_path}, found "
        f"{ids.shape[1]}x{ids.shape[0]} in {path}: resize the labels by nearest neighbour, or take the image "
        "that they were drawn on"
    )


def to_classes(ids: LabelMap, table: Mapping[int, int], path: str | Path) -> LabelMap:
    """Ids translated by a table, -1 where a class is ignored.

    Args:
        ids: (H, W).
        table: class of every id that may occur.
        path: of the label map, for the message.

    Raises:
        DataError: an id that the table does not know.
    """
    found, inverse = np.unique(ids, return_inverse=True)
    unknown = [int(i) for i in found if int(i) not in table]
    if unknown:
        known = sorted(table)
        some = ", ".join(map(str, unknown[:6])) + (", ..." if len(unknown) > 6 else "")
        raise DataError(
            f"expected ids {_ranges(known)} in the label map {path}, found {some}: take the data set's own "
            "label maps (diffcorr data list)"
        )
    classes = np.array([table[int(i)] for i in found], dtype=np.int64)
    return classes[inverse].reshape(ids.shape)


def centre_square(height: int, width: int, side: int) -> tuple[LabelMap, LabelMap]:
    """Rows (side,) and columns (side,) that show the largest centred square at ``side`` x ``side`` pixels.

    Nearest neighbour by pixel centres, as the published DiffSeg program crops and resizes labels.
    """
    short = min(height, width)
    steps = (2 * np.arange(side) + 1) * short // (2 * side)
    return (height - short) // 2 + steps, (width - short) // 2 + steps


def _ranges(numbers: list[int]) -> str:
    """``0..181, 255`` for a sorted list."""
    starts = [n for i, n in enumerate(numbers) if i == 0 or n != numbers[i - 1] + 1]
    ends = [n for i, n in enumerate(numbers) if i + 1 == len(numbers) or n != numbers[i + 1] - 1]
    return ", ".join(str(a) if a == b else f"{a}..{b}" for a, b in zip(starts, ends, strict=True))
