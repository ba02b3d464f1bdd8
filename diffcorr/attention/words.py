"""Where a model looks for each word of a caption (Hedlin et al. 2023, figures 4 and 5), or of a list."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from diffcorr.attention.base import AttentionVariant
from diffcorr.attention.capture import Trunk, read_prompts, resize_maps
from diffcorr.attention.mean import MeanAttention
from diffcorr.attention.recorders import AttentionMap
from diffcorr.backbones.base import Backbone, LayerSpec
from diffcorr.data.geometry import frame, image_size, image_to_tensor
from diffcorr.errors import DiffcorrError, UnknownNameError
from diffcorr.types import UInt8Image

MARKS = ("<|startoftext|>", "<|endoftext|>", "</s>", "<pad>", "")
"""Tokens that belong to no word: of CLIP, of T5, and those that a model without T5 has in their place."""

ENDS = ("<|endoftext|>", "</s>")
WORD_END, WORD_START = "</w>", "\N{LOWER ONE EIGHTH BLOCK}"
"""What the last token of a word ends in, in CLIP's vocabulary, and what its first begins with, in T5's."""


@torch.no_grad()
def word_maps(
    backbone: Backbone,
    image: UInt8Image,
    caption: str,
    variant: AttentionVariant | None = None,
    *,
    layers: LayerSpec = "paper",
    timestep: int = 140,
    num_draws: int = 4,
    seed: int = 0,
) -> tuple[list[str], Tensor]:
    """Cross-attention maps of a caption's tokens.

    Args:
        backbone: with a text encoder.
        image: RGB image of any size; it is stretched to the backbone's square.
        caption: the text.
        variant: how heads become a map; None = their mean.
        layers: which layers are read.
        timestep: noise level, 0..999.
        num_draws: noise draws that are averaged.
        seed: of the noise.

    Returns:
        N tokens without start, end and padding, and their maps (N, side, side) on the square image.
    """
    embeds_1PD, (tokens,) = backbone.encode_prompt([caption])
    variant = variant or MeanAttention()
    latents, noise = _latents(backbone, image, num_draws, seed)
    prompts = embeds_1PD.expand(num_draws, -1, -1)
    maps = read_prompts(backbone, latents, noise, timestep, prompts, layers, variant)
    side = backbone.image_size
    places = content(tokens)
    words = [tokens[place].removesuffix(WORD_END).removeprefix(WORD_START) for place in places]
    found = [_of_tokens(maps, [place], side, variant).mean(0) for place in places]
    return words, torch.stack(found) if places else torch.zeros(0, side, side)


@torch.no_grad()
def phrase_maps(
    backbone: Backbone,
    image: UInt8Image,
    phrases: Sequence[str],
    caption: str | None = None,
    variant: AttentionVariant | None = None,
    *,
    template: str = "a photo of a {}",
    layers: LayerSpec = "paper",
    timestep: int = 300,
    num_draws: int = 4,
    seed: int = 0,
) -> Tensor:
    """Cross-attention maps of words, each of one or more tokens, or of phrases of several words.

    The tokens of a phrase are averaged, at all places where the caption has it. Without a caption each
    phrase gets a prompt of its own, so that their number is not bounded by the length of a prompt; all
    are read in the same passes, in which the model follows the empty prompt.

    Args:
        backbone: with a text encoder.
        image: RGB image of any size; it is stretched to the backbone's square.
        phrases: one or more.
        caption: a text that has all of them; the model follows it.
        variant: how heads become a map; None = their mean.
        template: without a caption, the prompt of a phrase, which takes the place of ``{}``.
        layers: which layers are read.
        timestep: noise level, 0..999.
        num_draws: noise draws that are averaged.
        seed: of the noise.

    Returns:
        (W, side, side), a map for each phrase on the square image.

    Raises:
        DiffcorrError: no phrases, an empty one, or a template without one place for it.
        UnknownNameError: a phrase that the caption, as far as the text encoder reads it, does not have.
    """
    if not phrases or not all(phrase.strip() for phrase in phrases):
        raise DiffcorrError(f"expected one or more words, none of them empty, found {list(phrases)}")
    if caption is None and (template.count("{}") != 1 or template.replace("{}", "").count("{")):
        raise DiffcorrError(f"expected a template with one {{}} for the word, found {template!r}: change it")
    texts = [template.format(phrase) for phrase in phrases] if caption is None else [caption]
    prompts_BPD, tokens = backbone.encode_prompt(texts)
    places = [
        _places(phrase, own, tokens[b if caption is None else 0])
        for b, (phrase, own) in enumerate(zip(phrases, backbone.encode_prompt(phrases)[1], strict=True))
    ]
    variant = variant or MeanAttention()
    latents, noises = _latents(backbone, image, num_draws, seed)
    side = backbone.image_size
    total = torch.zeros(len(phrases), side, side, device=backbone.device)
    rows = [0] * len(prompts_BPD)
    # draw by draw: all of them with all prompts would take gigabytes
    for latent, noise in zip(latents.split(1), noises.split(1), strict=True):
        # where keys are no linear map of the prompt, the model has to follow each
        trunk: Trunk = "null" if caption is None and backbone.prompt_is_context else "prompt"
        maps = read_prompts(
            backbone, latent, noise, timestep, prompts_BPD, layers, variant, rows=rows, trunk=trunk
        )
        for phrase, wanted in enumerate(places):
            prompt = phrase if caption is None else 0
            total[phrase] += _of_tokens(maps, wanted, side, variant)[prompt] / num_draws
    return total


def content(tokens: Sequence[str]) -> list[int]:
    """Places of a prompt's tokens without start, end and what pads it after the first end."""
    end = next((place for place, token in enumerate(tokens) if token in ENDS), len(tokens))
    return [place for place in range(end) if tokens[place] not in (*MARKS, WORD_START)]


def _places(phrase: str, own: Sequence[str], tokens: Sequence[str]) -> list[int]:
    """Where a prompt has the tokens of a phrase, as whole words."""
    wanted = [own[place] for place in content(own)]
    there = content(tokens)
    words: list[list[int]] = []  # places of the tokens of each word
    for before, place in zip([None, *there], there, strict=False):
        begins = tokens[place].startswith(WORD_START) or WORD_START in tokens[max(0, place - 1) : place]
        if before is None or tokens[before].endswith(WORD_END) or begins:
            words.append([])
        words[-1].append(place)
    found = []
    for first in range(len(words)):
        for last in range(first + 1, len(words) + 1):
            places = [place for word in words[first:last] for place in word]
            if [tokens[place] for place in places] == wanted:
                found += places
    if not wanted or not found:
        named = ["".join(tokens[p] for p in word) for word in words]
        raise UnknownNameError(
            "word of the caption",
            phrase,
            dict.fromkeys(w.removesuffix(WORD_END).removeprefix(WORD_START) for w in named),
        )
    return found


def _latents(backbone: Backbone, image: UInt8Image, num_draws: int, seed: int) -> tuple[Tensor, Tensor]:
    """Latents (num_draws, c, h, w) of the image stretched to the square, all alike, and noise for them."""
    geometry = frame(image_size(image), backbone.image_size)
    pixels = image_to_tensor(image, geometry).to(backbone.device, backbone.dtype)
    latents = backbone.encode(pixels[None]).expand(num_draws, -1, -1, -1)
    return latents, torch.randn(latents.shape, generator=torch.Generator().manual_seed(seed))


def _of_tokens(
    maps: dict[str, AttentionMap], places: Sequence[int], side: int, variant: AttentionVariant
) -> Tensor:
    """Mean over tokens, layers joined, (B, side, side)."""
    columns = {
        name: AttentionMap(m.tensor[..., list(places)].mean(-1), m.size, m.layer) for name, m in maps.items()
    }
    return variant.join(resize_maps(columns, side), [m.layer for m in maps.values()])
