"""One image cut into segments, in a few lines.

segmentation = Segmenter.from_pretrained("tiny").segment("photo.jpg")
segmentation.mask            # (H, W), ids 0..K-1
segmentation.plot("masks.png")
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy import ndimage

from diffcorr.backbones.base import Backbone
from diffcorr.config import instantiate
from diffcorr.data.geometry import image_size
from diffcorr.inputs import ImageLike, as_image, load_backbone, load_preset, override
from diffcorr.reports import draw_segmentation, save_figure
from diffcorr.segmentation.base import Mask
from diffcorr.segmentation.diffseg import DiffSeg
from diffcorr.types import UInt8Image


@dataclass(frozen=True, eq=False)
class Segmentation:
    """The segments of one image.

    Attributes:
        image: RGB (H, W, 3) uint8, as it was read.
        mask: (H, W) int64, segment ids 0..K-1, each with at least one pixel.
    """

    image: UInt8Image = field(repr=False)
    mask: Mask = field(repr=False)

    @property
    def num_segments(self) -> int:
        """K."""
        return int(self.mask.max()) + 1

    def plot(self, path: str | os.PathLike[str] | None = None) -> Figure:
        """The image beside its segments with outlines; written to ``path`` as PNG where given.

        Raises:
            StoreError: the file cannot be written.
        """
        figure = draw_segmentation(self.image, self.mask)
        if path is not None:
            save_figure(figure, path)
        return figure

    def to_dict(self) -> dict[str, Any]:
        """Size (width, height) and every segment's id, area in pixels and bounding box, for JSON."""
        areas = np.bincount(self.mask.ravel())
        places = ndimage.find_objects(self.mask + 1)
        segments = [
            {"id": k, "area": int(area), "bbox": [columns.start, rows.start, columns.stop, rows.stop]}
            for k, (area, (rows, columns)) in enumerate(zip(areas, places, strict=True))
        ]
        return {"size": list(image_size(self.image)), "segments": segments}


class Segmenter:
    """Cuts images into segments without knowing any class (DiffSeg, Tian et al. 2024).

    Args:
        method: how to segment.
        backbone: frozen model.
    """

    def __init__(self, method: DiffSeg, backbone: Backbone) -> None:
        self.method, self.backbone = method, backbone

    @classmethod
    def from_pretrained(
        cls,
        backbone: str | os.PathLike[str] = "tiny",
        preset: str | None = None,
        device: str | torch.device = "cpu",
        dtype: str | torch.dtype = "float32",
        seed: int = 0,
        **overrides: object,
    ) -> Segmenter:
        """A segmenter on a model that is loaded by name.

        Args:
            backbone: ``"tiny"`` (ships with the package), another name of ``configs/backbone``, a
                local diffusers folder, or a hub name ``owner/name``.
            preset: name in ``configs/method``; None = ``diffseg``, tuned for the embedded model, on it,
                else ``diffseg_paper``.
            device: where to compute.
            dtype: of the frozen weights.
            seed: of the noise, where ``add_noise`` asks for any.
            overrides: arguments of ``DiffSeg`` to change, such as ``tau=0.5, anchors=8``.

        Raises:
            UnknownNameError: an unknown backbone, preset or setting; lists those known.
            BackboneError: a folder that holds no diffusion model.
            DiffcorrError: a value out of its range, or a device that is not there.
        """
        name = preset or ("diffseg" if os.fspath(backbone) == "tiny" else "diffseg_paper")
        node = load_preset(name, DiffSeg.__name__, {"seed": seed})
        override([node], overrides)
        method: DiffSeg = instantiate(node, seed=seed)
        model = load_backbone(backbone, device, dtype)
        model.resolve_layers("self", method.layers)
        return cls(method, model)

    def segment(self, image: ImageLike) -> Segmentation:
        """Cut an image into segments.

        Args:
            image: path, PIL image or array (see ``diffcorr.inputs.as_image``), of any size and aspect.

        Raises:
            ImageError: an unreadable image.
        """
        pixels = as_image(image)
        (mask,) = self.method.segment([pixels], backbone=self.backbone)
        return Segmentation(pixels, renumber(mask))


def renumber(mask: Mask) -> Mask:
    """The same segments with ids 0..K-1 in the order of the old ones.

    A proposal that wins no pixel leaves a gap between the ids of a raw mask.
    """
    return np.unique(mask, return_inverse=True)[1].reshape(mask.shape).astype(np.int64)
