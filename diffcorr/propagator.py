"""A mask or label map of one image carried to others, in a few lines.

propagator = Propagator.from_pretrained("tiny")
carried = propagator.carry("a.jpg", mask, "b.jpg")
carried.label                # (H, W) of b.jpg, the values of the mask
carried.plot("carried.png")
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from diffcorr.attention.mean import MeanAttention
from diffcorr.config import instantiate
from diffcorr.correspondence.base import build_method
from diffcorr.data.labels import LabelMap
from diffcorr.errors import ImageError
from diffcorr.inputs import ImageLike, as_image, content_id, load_backbone, load_preset, override
from diffcorr.joint import CarryFeatures
from diffcorr.reports import draw_segmentation_sheet, save_figure
from diffcorr.types import UInt8Image


@dataclass(frozen=True, eq=False)
class Carried:
    """A label map and what became of it in another image.

    Attributes:
        source, target: RGB (H, W, 3) uint8, as they were read.
        source_label: (H, W) of the source, as it was given.
        label: (H, W) int64 of the target, values of `source_label`.
        names: of the values, where they were given.
    """

    source: UInt8Image = field(repr=False)
    target: UInt8Image = field(repr=False)
    source_label: LabelMap = field(repr=False)
    label: LabelMap = field(repr=False)
    names: Sequence[str] | None = None

    def plot(self, path: str | os.PathLike[str] | None = None) -> Figure:
        """Source and target with their label maps; written to ``path`` as PNG where given.

        Raises:
            StoreError: the file cannot be written.
        """
        figure = draw_segmentation_sheet(
            [self.source, self.target],
            [self.source_label, self.label],
            titles=("image", "label map"),
            captions=["source", "target"],
            segment_names=self.names,
        )
        if path is not None:
            save_figure(figure, path)
        return figure


class Propagator:
    """Carries label maps between images by the features of a frozen model.

    Args:
        carrier: how.
    """

    def __init__(self, carrier: CarryFeatures) -> None:
        self.carrier = carrier

    @classmethod
    def from_pretrained(
        cls,
        backbone: str | os.PathLike[str] = "tiny",
        preset: str = "carry_features",
        device: str = "cpu",
        dtype: str = "float32",
        seed: int = 0,
        **overrides: object,
    ) -> Propagator:
        """A propagator on a model that is loaded by name.

        Args:
            backbone: as in `Matcher.from_pretrained`.
            preset: ``carry_features``, or ``carry_segments``, which asks the target's own segments what is
                the object.
            device: where to compute.
            dtype: of the frozen weights.
            seed: of the noise.
            overrides: values of the preset to change, such as ``cells=64, block=2, timestep=100``.

        Raises:
            UnknownNameError: an unknown backbone, preset or setting; lists those known.
            BackboneError: a folder that holds no diffusion model.
            DiffcorrError: a value out of its range, or a device that is not there.
        """
        node = load_preset(preset, CarryFeatures.__name__, {"seed": seed})
        override([node, node.features], overrides)
        factory = instantiate(node)
        carrier = build_method(factory, load_backbone(backbone, device, dtype), MeanAttention())
        assert isinstance(carrier, CarryFeatures)
        return cls(carrier)

    def carry_all(
        self,
        source: ImageLike,
        label: npt.ArrayLike,
        targets: Iterable[ImageLike],
        names: Sequence[str] | None = None,
    ) -> list[Carried]:
        """The label maps of several targets, all of which are read first; else as `carry`."""
        image, images = as_image(source, "source"), [as_image(target, "target") for target in targets]
        return [self.carry(image, label, target, names) for target in images]

    def carry(
        self,
        source: ImageLike,
        label: npt.ArrayLike,
        target: ImageLike,
        names: Sequence[str] | None = None,
    ) -> Carried:
        """The label map of the target.

        Args:
            source: path, PIL image or array (see ``diffcorr.inputs.as_image``), of any size and aspect.
            label: (H, W) of the source: a mask (booleans), or integers: 0 for what is not the object, 1..
                its classes or parts, -1 unknown.
            target: as the source.
            names: of the values 0.., for the figure.

        Raises:
            ImageError: an unreadable image, or a label map of another size or kind.
        """
        images = [as_image(source, "source"), as_image(target, "target")]
        array = np.asarray(label)
        if array.shape != images[0].shape[:2] or array.dtype.kind not in "bui" or not (array >= 0).any():
            raise ImageError(
                f"expected a label map of integers {images[0].shape[:2]} like its image, not all negative, "
                f"found {array.dtype} {array.shape}"
            )
        keys = [f"image/{content_id(image)}" for image in images]
        values = array.astype(np.int64)
        found = self.carrier.carry(images[0], values, images[1], *keys)
        return Carried(images[0], images[1], values, found, names)
