"""Where a model sees each word of a caption, in a few lines (Hedlin et al. 2023, figures 4 and 5).

maps = WordMapper.from_pretrained("tiny").map("photo.jpg", "a picture of a cat")
maps.words                   # ("a", "picture", "of", "cat")
maps.plot("words.png")
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure

from diffcorr.attention.base import AttentionVariant
from diffcorr.attention.words import phrase_maps
from diffcorr.backbones.base import Backbone, LayerSpec
from diffcorr.config import instantiate, load_option
from diffcorr.data.geometry import image_size
from diffcorr.errors import DiffcorrError
from diffcorr.inputs import ImageLike, as_image, load_backbone
from diffcorr.reports import draw_word_maps, save_figure
from diffcorr.types import UInt8Image


@dataclass(frozen=True, eq=False)
class WordMaps:
    """Where the words of a caption are in an image.

    Attributes:
        image: RGB (H, W, 3) uint8, as it was read.
        caption: as it was given.
        words: W words in the order of the caption, each once.
        maps: (W, H, W) float32 in [0, 1]: the attention that a pixel gives the word.
    """

    image: UInt8Image = field(repr=False)
    caption: str
    words: tuple[str, ...]
    maps: npt.NDArray[np.float32] = field(repr=False)

    def plot(self, path: str | os.PathLike[str] | None = None) -> Figure:
        """The image and a map for each word, scaled to its own range; written as PNG where a path is given.

        Raises:
            StoreError: the file cannot be written.
        """
        figure = draw_word_maps(self.image, self.words, self.maps, title=self.caption)
        if path is not None:
            save_figure(figure, path)
        return figure

    def to_dict(self) -> dict[str, Any]:
        """Of each word its peak (x, y) in pixels of the image, its largest value and its mean, for JSON."""
        rows = []
        for word, own in zip(self.words, self.maps, strict=True):
            y, x = np.unravel_index(int(own.argmax()), own.shape)
            about = {"peak": [float(x) + 0.5, float(y) + 0.5], "max": float(own.max())}
            rows.append({"word": word, **about, "mean": float(own.mean())})
        return {"size": list(image_size(self.image)), "caption": self.caption, "words": rows}


class WordMapper:
    """Reads the cross-attention of the words of a caption, which the model follows.

    Args:
        backbone: frozen, with a text encoder.
        variant: how heads become a map.
        layers: which cross-attention layers are read.
        timestep: noise level, 0..999.
        num_draws: noise draws that are averaged.
        seed: of the noise.

    Raises:
        UnknownNameError: a layer that the backbone does not have.
        DiffcorrError: a value out of its range.
    """

    def __init__(
        self,
        backbone: Backbone,
        variant: AttentionVariant,
        layers: LayerSpec = "paper",
        timestep: int = 140,
        num_draws: int = 4,
        seed: int = 0,
    ) -> None:
        backbone.resolve_layers("cross", layers)
        if not 0 <= timestep <= 999 or num_draws < 1:
            raise DiffcorrError(
                f"expected a timestep in 0..999 and at least one draw, found {timestep} and {num_draws}"
            )
        self.backbone, self.variant, self.layers = backbone, variant, layers
        self.timestep, self.num_draws, self.seed = timestep, num_draws, seed

    @classmethod
    def from_pretrained(
        cls,
        backbone: str | os.PathLike[str] | Backbone = "tiny",
        device: str | torch.device = "cpu",
        dtype: str | torch.dtype = "float32",
        seed: int = 0,
        attention: str = "mean",
        layers: LayerSpec = "paper",
        timestep: int = 140,
        num_draws: int = 4,
    ) -> WordMapper:
        """On a model that is loaded by name; arguments as in `Matcher.from_pretrained` and of the class.

        Raises:
            UnknownNameError: an unknown backbone, attention or layer; lists those known.
            BackboneError: a folder that holds no diffusion model.
            DiffcorrError: a value out of its range, or a device that is not there.
        """
        variant: AttentionVariant = instantiate(load_option("attention", attention))
        model = load_backbone(backbone, device, dtype)
        return cls(model, variant, layers, timestep, num_draws, seed)

    def map(self, image: ImageLike, caption: str) -> WordMaps:
        """A map for each word of a caption; one that occurs several times has the mean of its places.

        Raises:
            ImageError: an unreadable image.
            DiffcorrError: a caption without words.
            UnknownNameError: a caption that is longer than the text encoder reads.
            BackboneError: a model without a text encoder.
        """
        pixels = as_image(image)
        words = list(dict.fromkeys(split_words(caption)))
        if not words:
            raise DiffcorrError(f"expected a caption with words, found {caption!r}: describe the image")
        maps_Whw = phrase_maps(
            self.backbone,
            pixels,
            words,
            caption,
            self.variant,
            layers=self.layers,
            timestep=self.timestep,
            num_draws=self.num_draws,
            seed=self.seed,
        )
        sized = F.interpolate(maps_Whw[None].float(), pixels.shape[:2], mode="bilinear")[0]
        return WordMaps(pixels, caption, tuple(words), sized.clamp(0, 1).cpu().numpy())


def split_words(text: str) -> list[str]:
    """The words of a text in their order, in small letters as text encoders read them."""
    return re.findall(r"\w+(?:['’-]\w+)*", text.lower())
