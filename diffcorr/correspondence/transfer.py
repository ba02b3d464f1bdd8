"""Read fitted embeddings in a target image (Hedlin et al. 2023, section 3.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from diffcorr.attention.base import AttentionVariant
from diffcorr.attention.capture import read_prompts, resize_maps
from diffcorr.backbones.base import Backbone, LayerInfo
from diffcorr.correspondence.config import TransferConfig
from diffcorr.correspondence.crops import Crop, LatentBank, bank_positions, crop_bounds, crop_side, snap
from diffcorr.correspondence.draws import Draws, SeededDraws
from diffcorr.data.geometry import Geometry, frame, image_size, image_to_tensor
from diffcorr.memory import CPU_BATCH, MOST, Batches, kept_at_once
from diffcorr.types import Point, UInt8Image

READERS = 16  # prompts that read one latent, where they do not lead the model


@dataclass(frozen=True)
class TransferResult:
    """Where one query lies in the target.

    Attributes:
        point: (x, y) in pixels of the original target image.
        confidence: attention that the found pixel gives the token, mean over heads, crops, rounds
            and layers, clipped to [0, 1]. The fit's target has peak 1, so that 1 is certainty.
        layer_points: the same read from each layer alone, by layer name.
        round_points: the same read from each round alone, all layers joined, by its number.
        sharpness: how much of the joined map is one peak there, see `sharpness`.
        heatmap: the layers joined, (side, side) of the square working image, where asked for.
        layer_maps: (side, side) of each layer, where asked for.
    """

    point: Point
    confidence: float
    layer_points: Mapping[str, Point]
    round_points: Mapping[int, Point]
    sharpness: float = 0.0
    heatmap: Tensor | None = None
    layer_maps: Mapping[str, Tensor] = field(default_factory=dict)


@torch.no_grad()
def transfer(
    backbone: Backbone,
    image: UInt8Image,
    embeddings_QRPD: Tensor,
    config: TransferConfig,
    variant: AttentionVariant,
    *,
    keys: Sequence[str] | None = None,
    target: str = "",
    draws: Sequence[Sequence[Draws]] | None = None,
    heatmaps: bool = False,
) -> list[TransferResult]:
    """Find Q queries in ``image``; all queries and rounds are run in one batch.

    Maps are averaged over heads, then over crops, then over rounds; ``config.readout`` says how
    layers are joined.

    Args:
        backbone: the one on which the embeddings were fitted.
        image: RGB target of any size.
        embeddings_QRPD: R rounds of Q queries.
        config: everything that can be chosen.
        variant: how heads become a map.
        keys: identity of each query (its id), from which its random numbers derive.
        target: identity of the image, likewise.
        draws: random numbers of each query and round instead.
        heatmaps: keep the maps.
    """
    config.check(backbone)
    num_queries, num_rounds = embeddings_QRPD.shape[:2]
    layers = backbone.resolve_layers("cross", config.layers)
    side = config.side or backbone.image_size
    geometry = frame(image_size(image), side, config.frame)
    pixels = image_to_tensor(image, geometry).to(backbone.device, backbone.dtype)
    names = keys if keys is not None else [str(q) for q in range(num_queries)]
    flat = embeddings_QRPD.flatten(0, 1).to(backbone.device)
    bank = LatentBank(backbone, crop_side(side, config.crop), keep=bool(config.bank_size))
    batches = batches_of(config, backbone)

    def draws_of(n: int) -> Draws:
        q, r = divmod(n, num_rounds)
        return draws[q][r] if draws is not None else SeededDraws("transfer", config.seed, target, names[q], r)

    def read(queries: Sequence[int]) -> Tensor:
        items = [q * num_rounds + r for q in queries for r in range(num_rounds)]

        def work(part: slice) -> Tensor:
            some = items[part]
            members = [draws_of(n) for n in some]
            return _read(backbone, bank, pixels, flat[some], members, config, variant, geometry, batches)

        return torch.cat(batches.map(len(items), work)).unflatten(0, (len(queries), num_rounds))

    return [
        read_out(maps_RLHW.mean(0), maps_RLHW, layers, config, variant, geometry, heatmaps)
        for queries in by_room(num_queries, backbone, num_rounds * len(layers) * side**2)
        for maps_RLHW in read(queries)
    ]


def by_room(num_queries: int, backbone: Backbone, pixels: int) -> list[range]:
    """Queries in parts whose maps, of so many ``pixels`` each, the device holds at once."""
    width = torch.promote_types(backbone.dtype, torch.float32).itemsize
    at_once = kept_at_once(backbone.device, pixels * width)
    return [range(q, min(q + at_once, num_queries)) for q in range(0, num_queries, at_once)]


def batches_of(config: TransferConfig, backbone: Backbone) -> Batches:
    """How many prompts a reading runs at once; where that was too much, fewer from then on."""
    if config.batch_size != "auto":
        return Batches(config.batch_size)
    shared = config.crops == "grid" and config.trunk == "null"  # then a prompt more costs little
    size = (CPU_BATCH if backbone.device.type == "cpu" else MOST) * (READERS if shared else 1)
    return backbone.batches(f"transfer {config}", lambda: size)


def _read(
    backbone: Backbone,
    bank: LatentBank,
    pixels_CHW: Tensor,
    embeddings_NPD: Tensor,
    draws: Sequence[Draws],
    config: TransferConfig,
    variant: AttentionVariant,
    geometry: Geometry,
    batches: Batches,
) -> Tensor:
    """Maps (N, L, side, side) of each item: the mean over the crops that show a pixel, else 0."""
    side = geometry.size[0]
    pixels = crop_side(side, config.crop)
    room = side - pixels
    positions = bank_positions(side, pixels, config.bank_size or 1 << 62)
    corners = [Crop(0, 0), Crop(0, room), Crop(room, 0), Crop(room, room)][: config.num_crops]
    layers = backbone.resolve_layers("cross", config.layers)
    precise = torch.promote_types(backbone.dtype, torch.float32)
    total = pixels_CHW.new_zeros(len(draws), len(layers), side, side, dtype=precise)
    count = total.new_zeros(len(draws), 1, side, side)

    def look(steps: Sequence[int], crops_SN: Sequence[Sequence[Crop]]) -> None:
        """Add what each item sees in its crop of each step."""
        bank.add("", pixels_CHW, {crop for crops in crops_SN for crop in crops})
        passes = [(n, crop) for crops in crops_SN for n, crop in enumerate(crops)]
        shape = tuple(bank["", passes[0][1]].shape)
        noises = [draw.noise(step, shape, config.noise) for step in steps for draw in draws]

        def work(part: slice) -> None:
            latents = torch.stack([bank["", crop] for _, crop in passes[part]])
            maps = read_prompts(
                backbone,
                latents,
                torch.stack(noises[part]),
                config.timestep,
                embeddings_NPD[[n for n, _ in passes[part]]],
                config.layers,
                variant,
                config.token,
                trunk=config.trunk,
                stop_early=config.stop_early,
            )
            for (n, (x, y, _)), found in zip(passes[part], resize_maps(maps, pixels), strict=True):
                total[n, :, y : y + pixels, x : x + pixels] += found
                count[n, :, y : y + pixels, x : x + pixels] += 1

        batches.map(len(passes), work)

    look(range(len(corners)), [[corner] * len(draws) for corner in corners])
    for step in range(len(corners), config.num_crops):
        centres = _argmax(variant.join(total / count.clamp(min=1), layers), geometry)
        crops = []
        for centre, draw in zip(centres, draws, strict=True):
            crop = Crop(*draw.crop(step, *crop_bounds(centre, side, pixels, config.margin)))
            crops.append(snap(crop, centre, pixels, positions) if config.bank_size else crop)
        look([step], [crops])
    return total / count.clamp(min=1)


def _argmax(maps_NHW: Tensor, geometry: Geometry) -> list[Point]:
    """Centre of each map's largest pixel among those that show the image; of equals the first.

    Enlarged maps are flat along their border, where only rounding tells pixels apart: what is
    within a few units of rounding counts as equal, or points would depend on the batch.
    """
    left, top, right, bottom = geometry.destination
    flat = maps_NHW[:, top:bottom, left:right].flatten(1)
    largest = flat.amax(1, keepdim=True)
    equal = flat >= largest - 16 * torch.finfo(flat.dtype).eps * largest.abs()
    width = right - left
    return [(left + i % width + 0.5, top + i // width + 0.5) for i in equal.int().argmax(1).tolist()]


def read_out(
    maps_LHW: Tensor,
    maps_RLHW: Tensor,
    layers: Sequence[LayerInfo],
    config: TransferConfig,
    variant: AttentionVariant,
    geometry: Geometry,
    keep: bool,
) -> TransferResult:
    """Where the mean maps (L, side, side) of the square working image peak, in the original image.

    ``maps_RLHW`` are those of each round, which only ``round_points`` are read from.
    """
    mean = variant.join(maps_LHW[None], layers)[0]
    every = torch.cat([maps_LHW[None], maps_RLHW])
    if config.readout == "softmax_mean":
        every = every.flatten(2).softmax(-1).view_as(every)
    all_rounds, *alone = variant.join(every, layers)
    found = _argmax(torch.stack([all_rounds, *maps_LHW, *alone]), geometry)

    def original(point: Point) -> Point:
        at_x, at_y = geometry.inverse(torch.tensor(point, dtype=torch.float64)).tolist()
        return at_x, at_y

    left, top, right, bottom = geometry.destination
    shown = mean[top:bottom, left:right]
    (x, y), by_layer, by_round = found[0], found[1 : len(layers) + 1], found[len(layers) + 1 :]
    return TransferResult(
        point=original((x, y)),
        confidence=float(mean[int(y), int(x)].clamp(0, 1)),
        layer_points={layer.name: original(point) for layer, point in zip(layers, by_layer, strict=True)},
        round_points={number: original(point) for number, point in enumerate(by_round)},
        sharpness=sharpness(shown, (x - left, y - top), len(mean)),
        heatmap=mean.cpu() if keep else None,
        layer_maps=dict(zip((layer.name for layer in layers), maps_LHW.cpu(), strict=True)) if keep else {},
    )


def sharpness(map_HW: Tensor, point: Point, side: int, radius: float = 0.1) -> float:
    """The share of a map, above its smallest value, that lies around a point: 1 is one narrow peak.

    A map without any structure gives the share of the area, 0.03 in the middle of a square; a Gaussian as the
    fit asks for (standard deviation 0.055 of the side) gives 0.81.

    Args:
        map_HW: what the image covers of the square.
        point: (x, y) in pixels of the map.
        side: of the square, in the same pixels.
        radius: how far around the point, as a fraction of the side.
    """
    precise = torch.float32 if map_HW.device.type == "mps" else torch.float64  # Metal has no float64
    above = map_HW.to(precise) - map_HW.min().to(precise)
    height, width = above.shape
    x = torch.arange(width, device=above.device) + 0.5 - point[0]
    y = torch.arange(height, device=above.device) + 0.5 - point[1]
    near = (x.square() + y.square()[:, None]) <= (radius * side) ** 2
    if not (total := float(above.sum())):
        return float(near.to(precise).mean())
    return float(above[near].sum()) / total
