"""Fit prompt embeddings until cross-attention peaks on the query (Hedlin et al. 2023, section 3.2).

A pure loop: no trainer, no files. An item is one (query, round); items of a pack are optimised
together and never influence one another: each has its own random numbers, its loss enters a sum,
and Adam works element by element.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from diffcorr.attention.base import AttentionVariant
from diffcorr.attention.capture import capture, resize_maps
from diffcorr.backbones.base import Backbone
from diffcorr.correspondence.config import FitConfig
from diffcorr.correspondence.crops import (
    Crop,
    LatentBank,
    bank_positions,
    crop_bounds,
    crop_side,
    encode_crops,
    snap,
)
from diffcorr.correspondence.draws import Draws, SeededDraws
from diffcorr.data.geometry import check_inside, frame, image_size, image_to_tensor
from diffcorr.types import Query, UInt8Image


class FitItem(NamedTuple):
    """One random initialisation of one query."""

    query: Query
    round: int


class FitResult(NamedTuple):
    """Fitted embeddings (N, P, D) and their loss curves (steps, N), in the order of the items."""

    embeddings: Tensor
    losses: Tensor


def compose_packs(items: Sequence[FitItem], pack_size: int) -> list[list[FitItem]]:
    """Packs of items sorted by (query id, round), so that they do not depend on who asks."""
    ordered = sorted(items, key=lambda item: (item.query.id, item.round))
    return [ordered[start : start + pack_size] for start in range(0, len(ordered), pack_size)]


def gaussian_target(centres_N2: Tensor, side: int, sigma: float, pixel_centre: float = 0.5) -> Tensor:
    """Gaussians of peak 1, (N, side, side).

    Args:
        centres_N2: (x, y) as fractions of the side.
        side: pixels of the target.
        sigma: standard deviation as a fraction of the side.
        pixel_centre: offset at which pixels are evaluated.
    """
    grid = (torch.arange(side).to(centres_N2) + pixel_centre) - (centres_N2 * side)[..., None]
    x, y = (grid.square() / (-2 * (sigma * side) ** 2)).unbind(1)
    return (x[:, None, :] + y[:, :, None]).exp()


class PackFit:
    """The state of one pack: its embeddings, its crops, and the loss of any step.

    Args:
        backbone: frozen.
        items: N items.
        images: RGB image of each query by ``image_id``, any size.
        config: everything that can be chosen.
        variant: how heads become a map.
        draws: random numbers of each item; None = from (seed, query, round).
        bank: latents shared with other packs; None = a new one.

    Attributes:
        embeddings: (N, P, D) parameter, the only thing that receives a gradient.

    Raises:
        ImageError: a query outside of its image.
    """

    def __init__(
        self,
        backbone: Backbone,
        items: Sequence[FitItem],
        images: Mapping[str, UInt8Image],
        config: FitConfig,
        variant: AttentionVariant,
        draws: Sequence[Draws] | None = None,
        bank: LatentBank | None = None,
    ) -> None:
        self.backbone, self.items, self.config, self.variant = backbone, items, config, variant
        self.draws = draws or [SeededDraws("fit", config.seed, query.id, round) for query, round in items]
        self.side = config.side or backbone.image_size
        self.crop_pixels = crop_side(self.side, config.crop)
        self._load(images)
        self._crops = [self._plan(point, draw) for point, draw in zip(self._points, self.draws, strict=True)]
        self.embeddings = nn.Parameter(self._initial())
        self._bank = bank if bank is not None else LatentBank(backbone, self.crop_pixels, config.pack_size)
        if config.bank_size:
            wanted: dict[str, set[Crop]] = {}
            for item, crops in zip(items, self._crops, strict=True):
                wanted.setdefault(item.query.image_id, set()).update(crops)
            self._bank.require(self._pixels, wanted)

    def losses(self, step: int) -> Tensor:
        """Loss (N,) of each item at that step, on fresh crops and noise; steps come in order."""
        config, backbone = self.config, self.backbone
        crops = [plan[step] for plan in self._crops]
        latents = self._encode(crops)
        shape = tuple(latents.shape[1:])
        noise = torch.stack([draw.noise(step, shape, config.noise) for draw in self.draws])
        noisy = backbone.add_noise(latents, noise.to(latents), config.timestep)
        with capture(backbone, config.layers, variant=self.variant, token=config.token) as maps:
            backbone.denoise(noisy, config.timestep, self.embeddings)
        side = config.loss_resolution or max(max(m.size) for m in maps.values())
        maps_NLhw = resize_maps(maps, side)
        centres = self._centres(crops).to(maps_NLhw)
        target_N1hw = gaussian_target(centres, side, config.sigma, config.pixel_centre)[:, None]
        if config.loss == "mean_map":
            maps_NLhw = maps_NLhw.mean(1, keepdim=True)
        return (maps_NLhw - target_N1hw).square().mean((1, 2, 3))

    def optimizer(self) -> torch.optim.Adam:
        """Adam over this pack's embeddings; element by element, so that items stay apart."""
        return torch.optim.Adam([self.embeddings], lr=self.config.lr)

    def _load(self, images: Mapping[str, UInt8Image]) -> None:
        self._pixels: dict[str, Tensor] = {}
        self._points: list[tuple[float, float]] = []
        for query, _ in self.items:
            image = images[query.image_id]
            size = image_size(image)
            check_inside(query.point, size, f"query {query.id}")
            geometry = frame(size, self.side, self.config.frame)
            if query.image_id not in self._pixels:
                pixels = image_to_tensor(image, geometry)
                self._pixels[query.image_id] = pixels.to(self.backbone.device, self.backbone.dtype)
            x, y = geometry.forward(torch.tensor(query.point, dtype=torch.float64)).tolist()
            self._points.append((x, y))

    def _plan(self, point: tuple[float, float], draws: Draws) -> list[Crop]:
        config = self.config
        low, high = crop_bounds(point, self.side, self.crop_pixels, config.margin)
        crops = [
            Crop(*draws.crop(step, low, high), draws.flip(step, config.flip_prob))
            for step in range(config.steps)
        ]
        if not config.bank_size:
            return crops
        positions = bank_positions(self.side, self.crop_pixels, config.bank_size)
        return [snap(crop, point, self.crop_pixels, positions) for crop in crops]

    def _initial(self) -> Tensor:
        config, backbone = self.config, self.backbone
        shape = backbone.embedding_shape
        precise = torch.promote_types(backbone.dtype, torch.float32)
        start = torch.stack([draw.init(shape) for draw in self.draws]).to(backbone.device, precise)
        start = start * config.init_scale
        if config.init == "text":
            with torch.no_grad():
                start = start + backbone.encode_prompt([config.init_text])[0].to(start)
        return start

    def _encode(self, crops: Sequence[Crop]) -> Tensor:
        image_ids = [item.query.image_id for item in self.items]
        if self.config.bank_size:
            return torch.stack([self._bank[key] for key in zip(image_ids, crops, strict=True)])
        latents = [
            encode_crops(self.backbone, self._pixels[image_id], [crop], self.crop_pixels, 1)[0]
            for image_id, crop in zip(image_ids, crops, strict=True)
        ]
        return torch.stack(latents)

    def _centres(self, crops: Sequence[Crop]) -> Tensor:
        """Places (N, 2) of the queries in their crops, as fractions of the crop's side."""
        points = torch.tensor(self._points, dtype=torch.float64)
        corners = torch.tensor([(crop.x, crop.y) for crop in crops], dtype=torch.float64)
        centres = (points - corners) / self.crop_pixels
        flips = torch.tensor([crop.flip for crop in crops])
        centres[flips, 0] = 1 - centres[flips, 0]
        return centres


def fit_prompts(
    backbone: Backbone,
    items: Sequence[FitItem],
    images: Mapping[str, UInt8Image],
    config: FitConfig,
    variant: AttentionVariant,
    draws: Sequence[Draws] | None = None,
) -> FitResult:
    """Fit all items, pack by pack; the result does not depend on the packs.

    Args:
        backbone: frozen; its weights are not touched.
        items: what to fit.
        images: RGB image of each query by ``image_id``, any size.
        config: everything that can be chosen.
        variant: how heads become a map.
        draws: random numbers of each item, in their order; None = from (seed, query, round).

    Raises:
        ImageError: a query outside of its image.
        UnknownNameError: a layer that the backbone does not have.
    """
    config.check(backbone)
    place = {item: index for index, item in enumerate(items)}
    crop_pixels = crop_side(config.side or backbone.image_size, config.crop)
    bank = LatentBank(backbone, crop_pixels, config.pack_size)
    embeddings: dict[int, Tensor] = {}
    curves: dict[int, Tensor] = {}
    for members in compose_packs(items, config.pack_size):
        own = [draws[place[item]] for item in members] if draws is not None else None
        pack = PackFit(backbone, members, images, config, variant, own, bank)
        optimizer = pack.optimizer()
        losses = torch.zeros(config.steps, len(members))
        for step in range(config.steps):
            optimizer.zero_grad()
            step_losses = pack.losses(step)
            step_losses.sum().backward()
            optimizer.step()
            losses[step] = step_losses.detach()
        for row, item in enumerate(members):
            embeddings[place[item]] = pack.embeddings.detach()[row]
            curves[place[item]] = losses[:, row]
    if not items:
        return FitResult(torch.zeros(0, *backbone.embedding_shape), torch.zeros(config.steps, 0))
    order = range(len(items))
    return FitResult(torch.stack([embeddings[i] for i in order]), torch.stack([curves[i] for i in order], 1))
