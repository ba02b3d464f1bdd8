"""Where a model looks for each word of a caption (Hedlin et al. 2023, figures 4 and 5)."""

from __future__ import annotations

import torch
from torch import Tensor

from diffcorr.attention.base import AttentionVariant
from diffcorr.attention.capture import AttentionMap, capture, resize_maps
from diffcorr.backbones.base import Backbone, LayerSpec
from diffcorr.data.geometry import frame, image_size, image_to_tensor
from diffcorr.types import UInt8Image

SPECIAL = ("<|startoftext|>", "<|endoftext|>")


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
        layers: which layers are averaged.
        timestep: noise level, 0..999.
        num_draws: noise draws that are averaged.
        seed: of the noise.

    Returns:
        N tokens without start, end and padding, and their maps (N, side, side) on the square image.
    """
    embeds_1PD, tokens = backbone.encode_prompt([caption])
    side = backbone.image_size
    pixels = image_to_tensor(image, frame(image_size(image), side)).to(backbone.device, backbone.dtype)
    latents = backbone.encode(pixels[None]).expand(num_draws, -1, -1, -1)
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(seed)).to(latents)
    noisy = backbone.add_noise(latents, noise, timestep)
    with capture(backbone, layers, variant=variant) as maps:
        backbone.denoise(noisy, timestep, embeds_1PD.expand(num_draws, -1, -1))

    def of_token(place: int) -> Tensor:
        columns = {k: AttentionMap(m.tensor[..., place], m.size, m.layer) for k, m in maps.items()}
        return resize_maps(columns, side).mean((0, 1))

    places = [place for place, token in enumerate(tokens[0]) if token not in SPECIAL]
    words = [tokens[0][place].removesuffix("</w>") for place in places]
    return words, torch.stack([of_token(place) for place in places]) if places else torch.zeros(0, side, side)
