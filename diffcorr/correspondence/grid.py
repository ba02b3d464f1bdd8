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
from diffcorr.correspondence.transfer import TransferResult, batches_of, by_room, read_out
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
    precise = torch.promote_types(backbone.dtype, torch.float32)
    count = torch.zeros(side, side, dtype=precise, device=backbone.device)
    for x, y, _ in crops:
        count[y : y + pixels, x : x + pixels] += 1
    embeddings = embeddings_NPD.to(backbone.device)
    batches = batches_of(config, backbone)

    def read(wanted: Sequence[Sequence[Place]]) -> Tensor:
        """Maps (N, L, side, side) of all rounds of these queries, one after another."""
        readers: dict[int, list[Place]] = {}  # of each prompt: (which round of all, item)
        for row, (prompt, item) in enumerate(place for rounds in wanted for place in rounds):
            readers.setdefault(prompt, []).append((row, item))
        tokens = range(config.token, config.token + 1 + max(item for rounds in wanted for _, item in rounds))
        # crop by crop, so that prompts of one batch see few latents
        passes = [(crop, prompt) for crop in range(len(crops)) for prompt in sorted(readers)]
        shape = (sum(map(len, wanted)), len(layers), side, side)
        maps_NLHW = torch.zeros(shape, dtype=precise, device=backbone.device)

        def look(part: slice) -> None:
            seen, prompts = zip(*passes[part], strict=True)
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
            for (crop, prompt), maps_LKhw in zip(passes[part], resized, strict=True):
                x, y, _ = crops[crop]
                for row, item in readers[prompt]:  # views: nothing is allocated once something was added
                    maps_NLHW[row, :, y : y + pixels, x : x + pixels] += maps_LKhw[:, item]

        batches.map(len(passes), look)
        return maps_NLHW.div_(count.clamp(min=1))

    most = max((len(rounds) for rounds in places), default=1)
    found: list[TransferResult] = []
    for queries in by_room(len(places), backbone, most * len(layers) * side**2):
        wanted = [places[q] for q in queries]
        for maps_RLHW in read(wanted).split([len(rounds) for rounds in wanted]):
            maps_LHW = maps_RLHW.mean(0)
            found.append(read_out(maps_LHW, maps_RLHW, layers, config, variant, geometry, heatmaps))
    return found
