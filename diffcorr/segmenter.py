"""One image cut into segments, in a few lines.

segmentation = Segmenter.from_pretrained("tiny").segment("photo.jpg")
segmentation.mask            # (H, W), ids 0..K-1
segmentation.plot("masks.png")

named = segmenter.segment("photo.jpg", words=["dog", "grass", "sky"])
named.words                  # ("dog", "sky"): the name of each id; segments of one word are one

maps = segmenter.read("photo.jpg")          # the one pass of the model
finer = segmenter.merge(maps, tau=0.5)      # other thresholds cost only the merge
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from matplotlib.figure import Figure
from PIL import Image
from scipy import ndimage

from diffcorr.backbones.base import Backbone
from diffcorr.config import instantiate
from diffcorr.data.geometry import image_size
from diffcorr.errors import DiffcorrError, UnknownNameError
from diffcorr.inputs import ImageLike, as_image, load_backbone, load_preset, name_of, override
from diffcorr.reports import draw_segmentation, save_figure
from diffcorr.reports.masks import segment_color
from diffcorr.segmentation.base import Mask
from diffcorr.segmentation.captioner import Captioner
from diffcorr.segmentation.diffseg import DiffSeg
from diffcorr.segmentation.reader import Graph
from diffcorr.segmentation.word_labels import WordLabels, caption_words, mentions
from diffcorr.stores.files import writable_folder, write_atomic
from diffcorr.types import UInt8Image

Tau = float | Sequence[float]


@dataclass(frozen=True, eq=False)
class AttentionMaps:
    """What was read of one image: all that merging needs.

    Attributes:
        image: RGB (H, W, 3) uint8, as it was read.
        graph: how much every cell of the model's grid attends to every other.
    """

    image: UInt8Image = field(repr=False)
    graph: Graph = field(repr=False)


@dataclass(frozen=True, eq=False)
class Segmentation:
    """The segments of one image.

    Attributes:
        image: RGB (H, W, 3) uint8, as it was read.
        mask: (H, W) int64, segment ids 0..K-1, each with at least one pixel.
        words: the name of each segment, no two alike, where names were asked for.
        caption: what a captioning model said, or the caption that was given.
    """

    image: UInt8Image = field(repr=False)
    mask: Mask = field(repr=False)
    words: tuple[str, ...] | None = None
    caption: str | None = None

    @property
    def num_segments(self) -> int:
        """K."""
        return int(self.mask.max()) + 1

    def plot(self, path: str | os.PathLike[str] | None = None) -> Figure:
        """The image beside its segments with outlines; written to ``path`` as PNG where given.

        Raises:
            StoreError: the file cannot be written.
        """
        figure = draw_segmentation(self.image, self.mask, segment_names=self.words)
        if path is not None:
            save_figure(figure, path)
        return figure

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the mask as PNG whose pixel values are the segment ids, with a colour for each.

        More than 256 segments are written as 16-bit grey.

        Raises:
            StoreError: the file cannot be written.
        """
        if self.num_segments > 256:
            picture = Image.fromarray(self.mask.astype(np.uint16))
        else:
            picture = Image.fromarray(self.mask.astype(np.uint8), mode="P")
            colors = [segment_color(k) for k in range(self.num_segments)]
            picture.putpalette([round(255 * channel) for color in colors for channel in color])
        target = Path(path)
        writable_folder(target.parent)
        write_atomic(target, lambda to: picture.save(to, format="PNG"))

    def to_dict(self) -> dict[str, Any]:
        """Size (width, height) and every segment's id, area in pixels, bounding box and word, for JSON."""
        areas = np.bincount(self.mask.ravel())
        places = ndimage.find_objects(self.mask + 1)
        segments: list[dict[str, Any]] = [
            {"id": k, "area": int(area), "bbox": [columns.start, rows.start, columns.stop, rows.stop]}
            for k, (area, (rows, columns)) in enumerate(zip(areas, places, strict=True))
        ]
        if self.words is not None:
            segments = [{**about, "word": word} for about, word in zip(segments, self.words, strict=True)]
        said = {} if self.caption is None else {"caption": self.caption}
        return {"size": list(image_size(self.image)), **said, "segments": segments}


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
        backbone: str | os.PathLike[str] | Backbone = "tiny",
        preset: str | None = None,
        device: str | torch.device = "cpu",
        dtype: str | torch.dtype = "float32",
        seed: int = 0,
        **overrides: object,
    ) -> Segmenter:
        """A segmenter on a model that is loaded by name.

        Args:
            backbone: ``"tiny"`` (ships with the package), another name of ``configs/backbone``, a
                local diffusers folder, a hub name ``owner/name``, or a model that is loaded already.
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
        name = preset or ("diffseg" if name_of(backbone) == "tiny" else "diffseg_paper")
        node = load_preset(name, DiffSeg.__name__, {"seed": seed})
        override([node], overrides)
        method: DiffSeg = instantiate(node, seed=seed)
        model = load_backbone(backbone, device, dtype)
        model.resolve_layers("self", method.layers)
        return cls(method, model)

    def segment(
        self,
        image: ImageLike,
        words: Sequence[str] | None = None,
        caption: str | None = None,
        captioner: str | os.PathLike[str] | Captioner | None = None,
        template: str = "a photo of a {}",
    ) -> Segmentation:
        """Cut an image into segments, and name them where words are given.

        Each segment takes the word that the model's cross-attention gives it most of, and segments of one
        word become one (`diffcorr.segmentation.word_labels`).

        Args:
            image: path, PIL image or array (see ``diffcorr.inputs.as_image``), of any size and aspect.
            words: names to choose from, each of one or more words.
            caption: what the image shows, in a sentence. Without `words`, all of its words but articles,
                prepositions and the like are names to choose from.
            captioner: a captioning model of transformers that makes the caption, such as BLIP: a folder, a
                hub name, or a loaded one.
            template: how a word is shown to the model where there is no caption.

        Raises:
            ImageError: an unreadable image.
            UnknownNameError: a word that the caption does not have.
            BackboneError: no captioning model, or a diffusion model without a text encoder.
            DiffcorrError: words that are none, a caption without any, or a caption beside a captioner.
        """
        pixels = as_image(image)
        if caption is not None and captioner is not None:
            raise DiffcorrError("expected a caption or a captioner, found both: leave one out")
        if captioner is None:
            _names(words, caption)  # a slip is told before the model runs
        segments = self.merge(self.read(pixels))
        if words is None and caption is None and captioner is None:
            return segments
        return self.name(segments, words, caption, captioner, template)

    def segment_all(self, images: Iterable[ImageLike]) -> list[Segmentation]:
        """Cut several images, all of which are read before the model runs; those alike run in one pass.

        Raises:
            ImageError: an unreadable image.
        """
        pixels = [as_image(image) for image in images]
        masks = self.method.segment(pixels, backbone=self.backbone)
        return [Segmentation(own, renumber(mask)) for own, mask in zip(pixels, masks, strict=True)]

    def read(self, image: ImageLike) -> AttentionMaps:
        """Run the model once; what `merge` cuts under any threshold.

        Raises:
            ImageError: an unreadable image.
        """
        pixels = as_image(image)
        (graph,) = self.method.affinity([pixels], self.backbone)
        return AttentionMaps(pixels, graph)

    def merge(self, maps: AttentionMaps, tau: Tau | Literal["auto"] | None = None) -> Segmentation:
        """Segments of what was read.

        Args:
            maps: of `read`.
            tau: threshold in nats, larger values merge more; a list gives one per iteration, ``auto`` finds
                one; None = the preset's.

        Raises:
            DiffcorrError: a threshold that is not positive.
        """
        method = self.method if tau is None else replace(self.method, tau=tau)
        mask = method.group(maps.graph, maps.image.shape[:2])
        return Segmentation(maps.image, renumber(mask.cpu().numpy()))

    def name(
        self,
        segmentation: Segmentation,
        words: Sequence[str] | None = None,
        caption: str | None = None,
        captioner: str | os.PathLike[str] | Captioner | None = None,
        template: str = "a photo of a {}",
    ) -> Segmentation:
        """Name segments; those of one word become one.

        Arguments and errors are those of `segment`; words or a caption have to be given.
        """
        pixels = segmentation.image
        if captioner is not None:
            if caption is not None:
                raise DiffcorrError("expected a caption or a captioner, found both: leave one out")
            if not isinstance(captioner, Captioner):
                captioner = Captioner.from_pretrained(captioner, self.backbone.device)
            caption = captioner(pixels)
        names = _names(words, caption)
        if names is None:
            raise DiffcorrError("expected words or a caption to name segments by, found neither: give one")
        named = WordLabels(grouper=self.method, words=names, template=template, seed=self.method.seed)
        mask = named.label(pixels, segmentation.mask, self.backbone, caption)
        there = tuple(names[number] for number in np.unique(mask))
        return Segmentation(pixels, renumber(mask), there, caption)


def _names(words: Sequence[str] | None, caption: str | None) -> list[str] | None:
    """The names to choose from; None where none were asked for."""
    if words is None and caption is None:
        return None
    if isinstance(words, str):
        raise DiffcorrError(f"expected words as a list, found the text {words!r}: give [{words!r}]")
    names = caption_words(caption or "") if words is None else list(dict.fromkeys(words))
    if not names:
        raise DiffcorrError(f"expected words to name segments by, found none in {caption!r}: give words")
    if caption is not None and (unsaid := [name for name in names if not mentions(caption, name)]):
        raise UnknownNameError("word of the caption", unsaid[0], caption_words(caption))
    return names


def renumber(mask: Mask) -> Mask:
    """The same segments with ids 0..K-1 in the order of the old ones.

    A proposal that wins no pixel leaves a gap between the ids of a raw mask.
    """
    return np.unique(mask, return_inverse=True)[1].reshape(mask.shape).astype(np.int64)
