"""Read fitted embeddings in a target on a fixed grid of crops: one pass serves all of a prompt's queries."""

from __future__ import annotations

from collections.abc import Sequence
from math import isqrt

import torch
from torch import Tensor

from diffcorr.attention.base import AttentionVariant
from diffcorr.attention.capture import read_prompts, resize_maps
from diffcorr.backbones.base import Backbone
from diffcorr.correspondence.config import TransferConfig
from diffcorr.correspondence.crops import Crop, LatentBank, bank_positions, crop_side
from diffcorr.correspondence.draws import SeededDraws
from diffcorr.correspondence.transfer import TransferResult, batches_of, read_out
from diffcorr.data.geometry import frame, image_size, image_to_tensor
from diffcorr.types import UInt8Image

Place = tuple[int, int]
"""(prompt, which of its items)."""


@torch.no_grad()
def transfer_grid(
    backbone: Backbone,
    image: UInt8Image,
    embeddings_NPD: Tensor,
    places: Sequence[Sequence[Place]],
    config: TransferConfig,
    variant: AttentionVariant,
    *,
    target: str = "",
    heatmaps: bool = False,
) -> list[TransferResult]:
    """Find Q queries in ``image``; each crop is encoded once, and its noises are drawn once, for all of them.

    Maps are averaged over the crops that show a pixel and over a query's rounds, as in ``transfer``.

    Args:
        backbone: the one on which the embeddings were fitted.
        image: RGB target of any size.
        embeddings_NPD: the prompts.
        places: where each query's rounds are among the prompts.
        config: everything that can be chosen.
        variant: how heads become a map.
        target: identity of the image, from which the noise derives.
        heatmaps: keep the maps.
    """
    config.check(backbone)
    layers = backbone.resolve_layers("cross", config.layers)
    side = config.side or backbone.image_size
    geometry = frame(image_size(image), side, config.frame)
    pixels = crop_side(side, config.crop)
    lines = bank_positions(side, pixels, config.num_crops).tolist()
    if isqrt(config.num_crops) == 1:
        lines = [(side - pixels) // 2]
    grid = [Crop(x, y) for y in lines for x in lines]
    crops = grid * config.num_noises
    bank = LatentBank(backbone, pixels)
    bank.add("", image_to_tensor(image, geometry).to(backbone.device, backbone.dtype), set(grid))
    draws = SeededDraws("grid", config.seed, target)
    latents = torch.stack([bank["", crop] for crop in crops])
    noise = [draws.noise(step, tuple(latents.shape[1:]), config.noise) for step in range(len(crops))]
    num_rounds = [len(wanted) for wanted in places]
    readers: dict[int, list[Place]] = {}  # of each prompt: (which round of all, item)
    for row, (prompt, item) in enumerate(place for wanted in places for place in wanted):
        readers.setdefault(prompt, []).append((row, item))
    num_items = 1 + max((item for wanted in places for _, item in wanted), default=0)
    precise = torch.promote_types(backbone.dtype, torch.float32)
    shape = (sum(num_rounds), len(layers), side, side)
    maps_NLHW = torch.zeros(shape, dtype=precise, device=backbone.device)  # of each round
    count = torch.zeros(side, side, dtype=precise, device=backbone.device)
    for x, y, _ in crops:
        count[y : y + pixels, x : x + pixels] += 1
    embeddings = embeddings_NPD.to(backbone.device)
    tokens = range(config.token, config.token + num_items)

    def look(members: Sequence[tuple[int, int]]) -> None:
        """Add what prompts see, each in one crop."""
        seen, prompts = zip(*members, strict=True)
        maps = read_prompts(
            backbone,
            latents,
            torch.stack(noise),
            config.timestep,
            embeddings[list(prompts)],
            config.layers,
            variant,
            tokens,
            rows=seen,
            trunk=config.trunk,
            stop_early=config.stop_early,
        )
        resized = resize_maps(maps, pixels)
        for (crop, prompt), maps_LKhw in zip(members, resized, strict=True):
            x, y, _ = crops[crop]
            of_rounds, items = zip(*readers[prompt], strict=True)
            maps_NLHW[list(of_rounds), :, y : y + pixels, x : x + pixels] += maps_LKhw[
                :, list(items)
            ].movedim(1, 0)

    # crop by crop, so that prompts of one batch see few latents
    passes = [(crop, prompt) for crop in range(len(crops)) for prompt in sorted(readers)]
    batches_of(config, backbone).map(len(passes), lambda part: look(passes[part]))
    maps_NLHW /= count.clamp(min=1)
    return [
        read_out(maps_RLHW.mean(0), maps_RLHW, layers, config, variant, geometry, heatmaps)
        for maps_RLHW in maps_NLHW.split(num_rounds)
    ]
