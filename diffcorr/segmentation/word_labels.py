"""Words for segments: each takes the one that the model's cross-attention gives it most of (DiffSeg).

Segments of one word become one. Where the words come from is the caller's choice: a list, a caption, or a
captioning model (`diffcorr.segmentation.captioner`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from diffcorr.attention.words import phrase_maps
from diffcorr.backbones.base import Backbone, LayerSpec
from diffcorr.errors import BackboneError, DiffcorrError, UnknownNameError
from diffcorr.segmentation.base import CountsFrom, Mask, SegmentationMethod
from diffcorr.segmentation.cache import key_of
from diffcorr.segmentation.captioner import Captioner
from diffcorr.types import UInt8Image

Reading = Literal["relative", "mean", "median", "chance"]
READINGS: tuple[Reading, ...] = ("relative", "mean", "median", "chance")

_NO_NOUNS = """
a an the and or but with without of on in at by for from to into onto over under above below behind beside
between near next its his her their is are was were be being there this that some two three four it as up
down out off while very photo picture image view close
"""
NO_NOUNS = frozenset(_NO_NOUNS.split())
"""Words of captions that name no thing; there is no tagger here that would know nouns."""


def name_segments(mask: Tensor, maps_Whw: Tensor, reading: Reading = "relative") -> Tensor:
    """The word of each segment.

    ``mean``: the word with the highest mean map inside the segment, as in the paper. ``relative``: the same
    with each map divided by its mean over the image, so that a word which draws much attention everywhere
    (the last of a caption, say) does not take all segments. ``median``: the median over the segment's pixels
    of the number of the highest word, the lower of two (the released program's other reading; it depends on
    the order of the words).

    Args:
        mask: (H, W) integer segment ids >= 0.
        maps_Whw: a map for each word, >= 0, on any grid that covers the image.
        reading: see above.

    Returns:
        (K,) int64 in 0..W-1, K = highest id + 1; 0 for an id without pixels.

    Raises:
        UnknownNameError: no such reading.
    """
    if reading not in ("relative", "mean", "median"):
        raise UnknownNameError("reading of word maps", reading, ("relative", "mean", "median"))
    num_segments = int(mask.max()) + 1
    flat = mask.flatten()
    sizes = torch.bincount(flat, minlength=num_segments)
    if reading == "relative":
        maps_Whw = maps_Whw / maps_Whw.mean((1, 2), keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
    means = []
    best = torch.full(flat.shape, -torch.inf, device=mask.device)
    highest = torch.zeros_like(flat)
    for word, own in enumerate(maps_Whw):  # one at a time: all of them at the size of a photo fill the memory
        pixels = F.interpolate(own[None, None].float(), mask.shape, mode="bilinear").flatten()
        if reading == "median":
            higher = pixels > best
            best, highest = best.where(~higher, pixels), highest.where(~higher, word)
        else:
            means.append(torch.bincount(flat, pixels.double(), num_segments) / sizes.clamp_min(1))
    if reading != "median":
        return torch.stack(means).argmax(0)
    named = [highest[flat == k].median() if sizes[k] else highest.new_zeros(()) for k in range(num_segments)]
    return torch.stack(named)


def caption_words(caption: str) -> list[str]:
    """The words of a caption that may name something, in small letters, each once.

    Without a tagger these are all but `NO_NOUNS`; adjectives and verbs are among them.
    """
    found = re.findall(r"[^\W\d_]+(?:['-][^\W\d_]+)*", caption.lower())
    return [word for word in dict.fromkeys(found) if word not in NO_NOUNS]


def mentions(caption: str, word: str) -> bool:
    """Whether a caption has a word or phrase, as whole words, in letters of any size."""
    return re.search(rf"(?<!\w){re.escape(word.strip())}(?!\w)", caption, re.IGNORECASE) is not None


@dataclass(frozen=True, kw_only=True)
class WordLabels:
    """Segments of any method, named: a mask's ids are the numbers of words, equal across images.

    Args:
        grouper: makes the segments.
        name: what stands beside its scores.
        words: the words to choose from; ``None``: the classes of the data set, filled in by the run.
        captions: where an image's caption comes from: ``data``, what the data set says of it (`tags`); a
            folder or hub name of a captioning model; or None, there is none. With a caption the words are
            those that it mentions, and the model follows it; where it mentions none, as without one.
        reading: how maps become words, see `name_segments`; or ``chance``, words at random.
        template, layers, timestep, num_draws, seed: see `phrase_maps`.

    Raises:
        UnknownNameError: no such reading.
    """

    grouper: SegmentationMethod
    name: str = "words"
    words: Sequence[str] | None = None
    captions: str | None = None
    reading: Reading = "relative"
    template: str = "a photo of a {}"
    layers: LayerSpec = "paper"
    timestep: int = 300
    num_draws: int = 4
    seed: int = 0
    needs_backbone = True

    def __post_init__(self) -> None:
        if self.reading not in READINGS:
            raise UnknownNameError("reading of word maps", self.reading, READINGS)

    @property
    def counts_from(self) -> CountsFrom:
        """Whence the number of the grouper's segments, see `SegmentationMethod`."""
        return self.grouper.counts_from

    def segment(
        self,
        images: Sequence[UInt8Image],
        *,
        backbone: Backbone | None = None,
        num_segments: Sequence[int] | None = None,
        captions: Sequence[str] | None = None,
    ) -> list[Mask]:
        """Masks of word numbers, see `SegmentationMethod.segment`.

        Args:
            images, backbone, num_segments: as there.
            captions: what the data set says of each image, for ``captions='data'``.

        Raises:
            BackboneError: no backbone, or one without a text encoder.
            DiffcorrError: no words, or no captions where they are asked for.
        """
        if backbone is None:
            raise BackboneError(f"{self.name} reads cross-attention and needs a backbone; none was given")
        if not self.words:
            raise DiffcorrError(f"{self.name} expects words to choose from, found none: set method.words")
        masks = self.grouper.segment(images, backbone=backbone, num_segments=num_segments)
        texts = self._captions(images, captions)
        return [
            self.label(image, mask, backbone, text)
            for image, mask, text in zip(images, masks, texts, strict=True)
        ]

    def label(self, image: UInt8Image, mask: Mask, backbone: Backbone, caption: str | None = None) -> Mask:
        """The mask of word numbers of one image from its segments."""
        words = list(self.words or ())
        places = [w for w, word in enumerate(words) if caption and mentions(caption, word)]
        if not places:
            places, caption = list(range(len(words))), None
        chosen = torch.tensor(places)
        if self.reading == "chance":
            generator = torch.Generator().manual_seed(int(key_of(image, {"seed": self.seed})[:15], 16))
            named = torch.randint(len(places), (int(mask.max()) + 1,), generator=generator)
        else:
            maps = phrase_maps(
                backbone,
                image,
                [words[place] for place in places],
                caption,
                template=self.template,
                layers=self.layers,
                timestep=self.timestep,
                num_draws=self.num_draws,
                seed=self.seed,
            )
            named = name_segments(torch.from_numpy(mask), maps.cpu(), self.reading)
        return np.asarray(chosen[named].numpy()[mask])

    def _captions(self, images: Sequence[UInt8Image], captions: Sequence[str] | None) -> Sequence[str | None]:
        if self.captions is None:
            return [None] * len(images)
        if self.captions != "data":
            return [self._captioner(image) for image in images]
        if captions is None or not all(captions):
            raise DiffcorrError(
                f"{self.name} expects a caption with each image, found none: this data set has no captions; "
                "set method.captions=null, or to a captioning model"
            )
        return captions

    @cached_property
    def _captioner(self) -> Captioner:
        return Captioner.from_pretrained(str(self.captions))
