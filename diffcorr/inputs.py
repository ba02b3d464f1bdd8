"""What users hand to the public API: images of any kind, models by name, presets with changes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from PIL import Image

from diffcorr.backbones.base import Backbone
from diffcorr.config import instantiate, load_option, option_names
from diffcorr.data.images import read_image, to_rgb
from diffcorr.errors import DiffcorrError, ImageError, UnknownNameError
from diffcorr.types import UInt8Image

ImageLike = str | os.PathLike[str] | Image.Image | npt.NDArray[Any]
"""A path, a PIL image, or an array (H, W), (H, W, 1..4): uint8, or float in [0, 1]."""


def as_image(image: ImageLike, name: str = "image") -> UInt8Image:
    """Any kind of image as RGB (H, W, 3), values 0..255, sharing no memory with what was given.

    Pictures are turned upright by their EXIF flag, transparency is laid on white.

    Raises:
        ImageError: no image, an unreadable one, or values whose range cannot be told.
    """
    if isinstance(image, str | os.PathLike):
        return read_image(os.fspath(image))
    picture = Image.fromarray(_as_bytes(image, name)) if isinstance(image, np.ndarray) else image
    if not isinstance(picture, Image.Image):
        raise ImageError(f"expected {name} as path, PIL image or array, found {type(image).__name__}")
    return to_rgb(picture, name)


def _as_bytes(array: npt.NDArray[Any], name: str) -> npt.NDArray[np.uint8]:
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[..., 0]
    shape_fits = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (2, 3, 4))
    is_float = np.issubdtype(array.dtype, np.floating)
    if not shape_fits or 0 in array.shape or not (is_float or array.dtype == np.uint8):
        raise ImageError(
            f"expected {name} as (H, W), (H, W, 3) or (H, W, 4) of uint8 or float, "
            f"found {array.dtype} {array.shape}: convert it first"
        )
    if is_float:
        if not (array.min() >= 0 and array.max() <= 1):
            raise ImageError(
                f"expected values of a float {name} in 0..1, found {array.min():g}..{array.max():g}: "
                "scale them or give uint8"
            )
        array = np.rint(array * 255).astype(np.uint8)
    return np.ascontiguousarray(array)


def content_id(image: UInt8Image) -> str:
    """Identity of an image by its pixels, equal wherever they came from."""
    return hashlib.sha256(f"{image.shape}".encode() + image.tobytes()).hexdigest()[:16]


def name_of(backbone: str | os.PathLike[str] | Backbone) -> str:
    """How a model is called that is given by name or loaded."""
    return backbone.name if isinstance(backbone, Backbone) else os.fspath(backbone)


def load_backbone(
    path_or_name: str | os.PathLike[str] | Backbone, device: str | torch.device, dtype: str | torch.dtype
) -> Backbone:
    """A backbone of ``configs/backbone`` by name, any local diffusers folder, or a hub name.

    One that is loaded already is given back as it is; device and precision are then its own.

    Raises:
        UnknownNameError: a name that is none of these.
        BackboneError: a folder that holds no such model.
        DiffcorrError: a device that is not there.
    """
    if isinstance(path_or_name, Backbone):
        return path_or_name
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise DiffcorrError(
            f"expected a device that torch can use here, found {str(device)!r}: try 'cpu'"
        ) from error
    name = os.fspath(path_or_name)
    if name in option_names("backbone") and name != "local":
        node = load_option("backbone", name)
    else:
        node = load_option("backbone", "local")
        node.path_or_name = name
    node.device, node.dtype = str(device), str(dtype).removeprefix("torch.")
    # weights that are made in inference mode could never take part in a fit
    with torch.inference_mode(False):
        backbone: Backbone = instantiate(node)
    return backbone


def load_preset(name: str, target: str | Sequence[str], root: Mapping[str, object]) -> DictConfig:
    """A method's config, if what it describes is of the class ``target``, or of one of several.

    Raises:
        UnknownNameError: it is not, or there is none; lists those that fit.
    """
    targets = {key: str(load_option("method", key)._target_) for key in option_names("method")}
    wanted = (target,) if isinstance(target, str) else target
    presets = [key for key, path in targets.items() if path.rpartition(".")[2] in wanted]
    if name not in presets:
        raise UnknownNameError("preset", name, presets)
    return load_option("method", name, root)


def override(sections: Sequence[DictConfig], changes: Mapping[str, object]) -> None:
    """Set values in place, each wherever a section has its key.

    Raises:
        UnknownNameError: a key that no section has; lists those there are.
        DiffcorrError: a value of another kind.
    """
    known = {str(key) for section in sections for key in section if not str(key).startswith("_")}
    for key, value in changes.items():
        if key not in known - {"name", "seed"}:
            raise UnknownNameError("setting", key, sorted(known - {"name", "seed"}))
        for section in (s for s in sections if key in s):
            old = section[key]
            is_number = isinstance(old, int | float) and not isinstance(old, bool)
            if is_number and (isinstance(value, str) or (isinstance(old, int) and isinstance(value, float))):
                kind = "a whole number" if isinstance(old, int) else "a number"
                raise DiffcorrError(f"expected {key} as {kind} such as {old}, found {value!r}")
            try:
                section[key] = value
            except OmegaConfBaseException as error:
                raise DiffcorrError(
                    f"expected {key} as a plain value such as {old!r}, found {type(value).__name__}"
                ) from error
