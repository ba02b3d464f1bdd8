"""Any picture as RGB, upright."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from diffcorr.errors import ImageError
from diffcorr.types import Size, UInt8Image

_LYING = (5, 6, 7, 8)
"""EXIF orientations under which width and height change places."""


def to_rgb(picture: Image.Image, name: str = "image") -> UInt8Image:
    """A Pillow image as (H, W, 3), values 0..255, sharing no memory with it.

    It is turned upright by its EXIF flag, transparency is laid on white, of an animation the first frame is
    taken.

    Raises:
        ImageError: more than 8 bits a channel (Pillow would clip them), no pixel, or a truncated file.
    """
    if picture.mode.startswith(("I", "F")) or 0 in picture.size:
        raise ImageError(
            f"expected {name} of 8 bits a channel and at least one pixel, found PIL mode {picture.mode}, "
            f"{picture.width}x{picture.height}: convert it first"
        )
    try:
        upright = ImageOps.exif_transpose(picture)
        if upright.mode in ("RGBA", "LA", "PA") or "transparency" in upright.info:
            rgba = upright.convert("RGBA")
            upright = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
        return np.array(upright.convert("RGB"))
    except (OSError, SyntaxError, ValueError) as error:  # files are decoded as late as here
        raise ImageError(f"expected a readable {name}, found {error}: replace the file") from error


def read_image(path: str | Path) -> UInt8Image:
    """Read any picture that Pillow knows as RGB, see `to_rgb`.

    Raises:
        ImageError: no such file, no image, or as `to_rgb`.
    """
    try:
        with Image.open(path) as picture:
            return to_rgb(picture, f"image {path}")
    except FileNotFoundError:
        raise ImageError(f"expected an image, found no file at {path}; check the path") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, ImageError):
            raise
        raise ImageError(f"expected a readable image at {path}, found {error}; replace the file") from None


def upright_size(path: str | Path) -> Size:
    """(width, height) that `read_image` will give, from the file's header (of a TIFF, decoded).

    Raises:
        ImageError: no such file or no image.
    """
    try:
        with Image.open(path) as picture:
            if picture.format == "TIFF":
                picture.load()  # Pillow itself turns these, when depends on its version
            width, height = picture.size
            lying = picture.getexif().get(ExifTags.Base.Orientation) in _LYING
    except FileNotFoundError:
        raise ImageError(f"expected an image, found no file at {path}; check the path") from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ImageError(f"expected a readable image at {path}, found {error}; replace the file") from None
    return (height, width) if lying else (width, height)
