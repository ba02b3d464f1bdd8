"""One image cut into segments, in a few lines.

segmentation = Segmenter.from_pretrained("tiny").segment("photo.jpg")
segmentation.mask            # (H, W), ids 0..K-1
segmentation.plot("masks.png")

named = segmenter.segment("photo.jpg", words=["dog", "grass", "sky"])
named.words                  # ("dog", "sky"): the name of each id; segments of one word are one
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy import ndimage

from diffcorr.backbones.base import Backbone
from diffcorr.config import instantiate
from diffcorr.data.geometry import image_size
from diffcorr.errors import DiffcorrError, UnknownNameError
from diffcorr.inputs import ImageLike, as_image, load_backbone, load_preset, override
from diffcorr.reports import draw_segmentation, save_figure
from diffcorr.segmentation.base import Mask
from diffcorr.segmentation.captioner import Captioner
from diffcorr.segmentation.diffseg import DiffSeg
from diffcorr.segmentation.word_labels import WordLabels, caption_words, mentions
from diffcorr.types import UInt8Image


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
        if captioner is not None:
            if caption is not None:
                raise DiffcorrError("expected a caption or a captioner, found both: leave one out")
            if not isinstance(captioner, Captioner):
                captioner = Captioner.from_pretrained(captioner, self.backbone.device)
            caption = captioner(pixels)
        names = _names(words, caption)
        (mask,) = self.method.segment([pixels], backbone=self.backbone)
        if names is None:
            return Segmentation(pixels, renumber(mask))
        named = WordLabels(grouper=self.method, words=names, template=template, seed=self.method.seed)
        mask = named.label(pixels, mask, self.backbone, caption)
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
