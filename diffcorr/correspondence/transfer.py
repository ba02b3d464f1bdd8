"""Read fitted embeddings in a target image (Hedlin et al. 2023, section 3.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from diffcorr.attention.base import AttentionVariant
from diffcorr.attention.capture import capture
from diffcorr.backbones.base import Backbone
from diffcorr.correspondence.config import TransferConfig
from diffcorr.correspondence.crops import Crop, crop_bounds, crop_side, encode_crops
from diffcorr.correspondence.draws import Draws, SeededDraws
from diffcorr.data.geometry import Geometry, frame, image_size, image_to_tensor
from diffcorr.types import Point, UInt8Image


@dataclass(frozen=True)
class TransferResult:
    """Where one query lies in the target.

    Attributes:
        point: (x, y) in pixels of the original target image.
        confidence: attention that the found pixel gives the token, mean over heads, crops, rounds
            and layers, clipped to [0, 1]. The fit's target has peak 1, so that 1 is certainty.
        layer_points: the same read from each layer alone, by layer name.
        heatmap: mean over layers, (side, side) of the square working image, where asked for.
        layer_maps: (side, side) of each layer, where asked for.
    """

    point: Point
    confidence: float
    layer_points: Mapping[str, Point]
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
    layers = [layer.name for layer in backbone.resolve_layers("cross", config.layers)]
    side = config.side or backbone.image_size
    geometry = frame(image_size(image), side, config.frame)
    pixels = image_to_tensor(image, geometry).to(backbone.device, backbone.dtype)
    names = keys if keys is not None else [str(q) for q in range(num_queries)]
    sources = [
        draws[q][r] if draws is not None else SeededDraws("transfer", config.seed, target, names[q], r)
        for q in range(num_queries)
        for r in range(num_rounds)
    ]
    flat = embeddings_QRPD.flatten(0, 1).to(backbone.device)
    maps_QLHW: Tensor | None = None
    for start in range(0, len(sources), config.batch_size):
        part = slice(start, start + config.batch_size)
        maps_NLHW = _read(backbone, pixels, flat[part], sources[part], config, variant, geometry)
        if maps_QLHW is None:
            maps_QLHW = maps_NLHW.new_zeros(num_queries, *maps_NLHW.shape[1:])
        query = torch.arange(start, start + len(maps_NLHW), device=maps_NLHW.device) // num_rounds
        maps_QLHW.index_add_(0, query, maps_NLHW / num_rounds)
    if maps_QLHW is None:
        return []
    return [_result(maps_LHW, layers, config, geometry, heatmaps) for maps_LHW in maps_QLHW]


def _read(
    backbone: Backbone,
    pixels_CHW: Tensor,
    embeddings_NPD: Tensor,
    draws: Sequence[Draws],
    config: TransferConfig,
    variant: AttentionVariant,
    geometry: Geometry,
) -> Tensor:
    """Maps (N, L, side, side) of each item: the mean over the crops that show a pixel, else 0."""
    side = geometry.size[0]
    pixels = crop_side(side, config.crop)
    room = side - pixels
    corners = [Crop(0, 0), Crop(0, room), Crop(room, 0), Crop(room, room)]
    num_layers = len(backbone.resolve_layers("cross", config.layers))
    precise = torch.promote_types(backbone.dtype, torch.float32)
    total = pixels_CHW.new_zeros(len(draws), num_layers, side, side, dtype=precise)
    count = total.new_zeros(len(draws), 1, side, side)
    for step in range(config.num_crops):
        if step < len(corners):
            crops = [corners[step]] * len(draws)
        else:
            mean = (total / count.clamp(min=1)).mean(1)
            crops = []
            for (x, y), draw in zip(_argmax(mean, geometry), draws, strict=True):
                low, high = crop_bounds((x, y), side, pixels, config.margin)
                crops.append(Crop(*draw.crop(step, low, high)))
        distinct = sorted(set(crops))
        encoded = dict(
            zip(
                distinct, encode_crops(backbone, pixels_CHW, distinct, pixels, config.batch_size), strict=True
            )
        )
        latents = torch.stack([encoded[crop] for crop in crops])
        shape = tuple(latents.shape[1:])
        noise = torch.stack([draw.noise(step, shape, config.noise) for draw in draws])
        noisy = backbone.add_noise(latents, noise.to(latents), config.timestep)
        with capture(backbone, config.layers, variant=variant, token=config.token) as maps:
            backbone.denoise(noisy, config.timestep, embeddings_NPD)
        resized = torch.stack(
            [
                F.interpolate(m.grid[:, None], size=(pixels, pixels), mode="bilinear")[:, 0]
                for m in maps.values()
            ],
            1,
        )
        for n, (x, y, _) in enumerate(crops):
            total[n, :, y : y + pixels, x : x + pixels] += resized[n]
            count[n, :, y : y + pixels, x : x + pixels] += 1
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


def _result(
    maps_LHW: Tensor, layers: Sequence[str], config: TransferConfig, geometry: Geometry, keep: bool
) -> TransferResult:
    mean = maps_LHW.mean(0)
    score = mean
    if config.readout == "softmax_mean":
        score = maps_LHW.flatten(1).softmax(-1).mean(0).view_as(mean)
    (x, y), *by_layer = _argmax(torch.cat([score[None], maps_LHW]), geometry)

    def original(point: Point) -> Point:
        at_x, at_y = geometry.inverse(torch.tensor(point, dtype=torch.float64)).tolist()
        return at_x, at_y

    return TransferResult(
        point=original((x, y)),
        confidence=float(mean[int(y), int(x)].clamp(0, 1)),
        layer_points={name: original(point) for name, point in zip(layers, by_layer, strict=True)},
        heatmap=mean.cpu() if keep else None,
        layer_maps=dict(zip(layers, maps_LHW.cpu(), strict=True)) if keep else {},
    )
