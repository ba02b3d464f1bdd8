"""One pack of a fit: its embeddings, its crops, and the loss of any step.

Prompts of a pack are optimised together and never influence one another: each has its own random
numbers, its loss enters a sum, and Adam works element by element.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from diffcorr.attention.base import AttentionVariant
from diffcorr.attention.capture import read_prompts, resize_maps
from diffcorr.backbones.base import Backbone
from diffcorr.correspondence.config import FitConfig
from diffcorr.correspondence.crops import (
    ENCODE_BATCH,
    Crop,
    LatentBank,
    bank_positions,
    crop_bounds,
    crop_side,
    encode_crops,
    snap,
)
from diffcorr.correspondence.draws import Draws, SeededDraws
from diffcorr.correspondence.features_start import FeaturesStart
from diffcorr.correspondence.prompts import FitItem, Prompt, own_prompt
from diffcorr.data.geometry import check_inside, frame, image_size, image_to_tensor
from diffcorr.memory import Batches, fitting_size
from diffcorr.types import UInt8Image


def gaussian_target(centres: Tensor, side: int, sigma: float, pixel_centre: float = 0.5) -> Tensor:
    """Gaussians of peak 1, (..., side, side).

    Args:
        centres: (..., 2), (x, y) as fractions of the side.
        side: pixels of the target.
        sigma: standard deviation as a fraction of the side.
        pixel_centre: offset at which pixels are evaluated.
    """
    grid = (torch.arange(side).to(centres) + pixel_centre) - (centres * side)[..., None]
    x, y = (grid.square() / (-2 * (sigma * side) ** 2)).unbind(-2)
    return (x[..., None, :] + y[..., :, None]).exp()


class PackFit:
    """The state of one pack.

    Args:
        backbone: frozen.
        prompts: N prompts, or items that share with none.
        images: RGB image of each query by ``image_id``, any size.
        config: everything that can be chosen.
        variant: how heads become a map.
        draws: random numbers of each prompt; None = from (seed, its key).
        bank: latents shared with other packs; None = a new one.
        batches: how many prompts run at once, shared with other packs; None = all, as memory allows.

    Attributes:
        embeddings: (N, P, D) parameter, the only thing that receives a gradient.
        active: places of the prompts that are still fitted.

    Raises:
        ImageError: a query outside of its image.
    """

    def __init__(
        self,
        backbone: Backbone,
        prompts: Sequence[Prompt | FitItem],
        images: Mapping[str, UInt8Image],
        config: FitConfig,
        variant: AttentionVariant,
        draws: Sequence[Draws] | None = None,
        bank: LatentBank | None = None,
        batches: Batches | None = None,
    ) -> None:
        self.backbone, self.config, self.variant = backbone, config, variant
        self.prompts = [own_prompt(p) if isinstance(p, FitItem) else p for p in prompts]
        self.draws = draws or [SeededDraws("fit", config.seed, *p.key) for p in self.prompts]
        keys = [self._view(p) for p in self.prompts]
        self.views = draws or [SeededDraws("fit", config.seed, *key) for key in keys]
        self._same = [keys.index(key) for key in keys]  # prompts that see the same crops and noise
        self.batches = batches or Batches(len(self.prompts))
        self.active = list(range(len(self.prompts)))
        self.side = config.side or backbone.image_size
        self.crop_pixels = crop_side(self.side, config.crop)
        self._curve: list[Tensor] = []
        self._finished = torch.empty(0)  # the embeddings when the last prompt had converged
        self._load(images)
        self._crops = [
            self._plan(points, draw) for points, draw in zip(self._points, self.views, strict=True)
        ]
        self.embeddings = nn.Parameter(self._initial())
        self._bank = bank if bank is not None else LatentBank(backbone, self.crop_pixels)
        if config.bank_size:
            wanted: dict[str, set[Crop]] = {}
            for prompt, crops in zip(self.prompts, self._crops, strict=True):
                wanted.setdefault(prompt.image_id, set()).update(crops)
            self._bank.require(self._pixels, wanted)
        if config.init == "features":
            self._start_from_features()

    @property
    def curves(self) -> Tensor:
        """Losses (steps, N) so far on the CPU, nan where a prompt was no longer fitted."""
        missing = self.config.steps - len(self._curve)
        rows = [*self._curve, *[torch.full((len(self.prompts),), torch.nan)] * missing]
        return torch.stack([row.float().cpu() for row in rows]) if rows else torch.zeros(0, len(self.prompts))

    def optimizer(self) -> torch.optim.Adam:
        """Adam over this pack's embeddings; element by element, so that prompts stay apart."""
        return torch.optim.Adam([self.embeddings], lr=self.config.lr)

    def losses(self, step: int) -> Tensor:
        """Loss of each active prompt at that step, on fresh crops and noise; steps come in order."""
        return self._losses(step, self.active, self._noise(step))

    def backward(self, step: int, backward: Callable[[Tensor], None] | None = None) -> Tensor:
        """Gradients of the step's losses in ``embeddings.grad``, in as many passes as memory asks for.

        Args:
            step: steps come in order.
            backward: takes the sum of losses back instead of its own method, such as
                ``LightningModule.manual_backward``.

        Returns:
            (N,) losses, nan of prompts that are no longer fitted.
        """
        noise = self._noise(step)
        # in half precision gradients of a mean over many pixels vanish; a power of two is exact
        scale = 2.0**16 if self.backbone.dtype == torch.float16 else 1.0

        def work(part: slice) -> Tensor:
            losses = self._losses(step, self.active[part], noise[part])
            total = losses.sum() * scale
            backward(total) if backward else total.backward()
            return losses.detach()

        with torch.enable_grad():  # also where a trainer predicts
            found = torch.cat(self.batches.map(len(self.active), work))
        if scale != 1.0 and self.embeddings.grad is not None:
            self.embeddings.grad /= scale
        row = found.new_full((len(self.prompts),), torch.nan)
        row[self.active] = found
        self._curve.append(row)
        return row

    def settle(self) -> None:
        """After Adam's step: leave finished prompts as they were, and see which have converged."""
        patience = self.config.stop_patience
        if not patience:
            return
        done = [n for n in range(len(self.prompts)) if n not in self.active]
        with torch.no_grad():
            if done:  # momentum moves them even without a gradient
                self.embeddings[done] = self._finished[done]
            if len(self._curve) < 2 * patience:
                return
            recent = torch.stack(self._curve[-2 * patience :]).cpu()
            before, now = recent[:patience].mean(0), recent[patience:].mean(0)
            going = now < (1 - self.config.stop_tolerance) * before
            self._finished = self.embeddings.detach().clone()
        self.active = [n for n in self.active if going[n]]

    def _losses(self, step: int, rows: Sequence[int], noise: Tensor) -> Tensor:
        config, backbone = self.config, self.backbone
        crops = [self._crops[n][step] for n in rows]
        tokens = self._tokens(rows)
        token = tokens[0] if len(tokens) == 1 else tokens
        distinct, places = self._distinct(rows)
        latents = self._encode([rows[i] for i in distinct], [crops[i] for i in distinct])
        maps = read_prompts(
            backbone,
            latents,
            noise[distinct],
            config.timestep,
            self.embeddings[rows],
            config.layers,
            self.variant,
            token,
            rows=places,
            trunk=config.trunk,
            stop_early=config.stop_early,
        )
        side = config.loss_resolution or max(max(m.size) for m in maps.values())
        maps_NLhw = resize_maps(maps, side)
        if config.loss == "mean_map":
            layers = [m.layer for m in maps.values()]
            maps_NLhw = self.variant.join(maps_NLhw, layers).unsqueeze(1)
        centres, shown = self._centres(rows, crops)
        target = gaussian_target(centres.to(maps_NLhw), side, config.sigma, config.pixel_centre)
        if len(tokens) == 1:
            return (maps_NLhw - target).square().mean((1, 2, 3)) * shown[:, 0].to(target)
        errors_NK = (maps_NLhw - target[:, None]).square().mean((1, 3, 4))
        weights = shown.to(errors_NK)
        return (errors_NK * weights).sum(1) / weights.sum(1).clamp(min=1)  # a crop may show none of them

    def _view(self, prompt: Prompt) -> tuple[str, int]:
        """Whose random numbers draw the crops and the noise of a prompt's steps."""
        if self.config.views == "prompt":
            return prompt.key
        query, round = prompt.items[0]
        return f"{query.dataset}/{query.image_id}", round

    def _distinct(self, rows: Sequence[int]) -> tuple[list[int], list[int]]:
        """Places in ``rows`` of the first prompt of each view, and the view of each row among them."""
        same = [self._same[n] for n in rows]
        numbers = sorted(set(same))
        return [same.index(number) for number in numbers], [numbers.index(number) for number in same]

    def _noise(self, step: int) -> Tensor:
        shape = self._latent_shape()
        return torch.stack([self.views[n].noise(step, shape, self.config.noise) for n in self.active])

    def _latent_shape(self) -> tuple[int, ...]:
        if not hasattr(self, "_shape"):
            first = self.active[0]
            self._shape = tuple(self._encode([first], [self._crops[first][0]]).shape[1:])
        return self._shape

    def _load(self, images: Mapping[str, UInt8Image]) -> None:
        self._pixels: dict[str, Tensor] = {}
        self._points: list[list[tuple[float, float]]] = []
        for prompt in self.prompts:
            image = images[prompt.image_id]
            size = image_size(image)
            geometry = frame(size, self.side, self.config.frame)
            if prompt.image_id not in self._pixels:
                pixels = image_to_tensor(image, geometry)
                self._pixels[prompt.image_id] = pixels.to(self.backbone.device, self.backbone.dtype)
            points = []
            for query, _ in prompt.items:
                check_inside(query.point, size, f"query {query.id}")
                x, y = geometry.forward(torch.tensor(query.point, dtype=torch.float64)).tolist()
                points.append((x, y))
            self._points.append(points)

    def _plan(self, points: Sequence[tuple[float, float]], draws: Draws) -> list[Crop]:
        config, crops = self.config, []
        positions = bank_positions(self.side, self.crop_pixels, config.bank_size or 1 << 62)
        room = self.side - self.crop_pixels
        corners = [Crop(0, 0), Crop(0, room), Crop(room, 0), Crop(room, room)]
        for step in range(max(config.steps, config.init_crops if config.init == "features" else 0)):
            point: tuple[float, float] | None = None
            if config.views == "image":  # anywhere: no query may change what the others see
                low, high = (0, 0), (room, room)
            else:
                point = points[draws.pick(step, len(points))] if len(points) > 1 else points[0]
                low, high = crop_bounds(point, self.side, self.crop_pixels, config.margin)
            crop = Crop(*draws.crop(step, low, high), draws.flip(step, config.flip_prob))
            if config.views == "image" and step < len(corners):  # so that every query is seen
                crop = corners[step]._replace(flip=crop.flip)
            crops.append(snap(crop, point, self.crop_pixels, positions) if config.bank_size else crop)
        return crops

    def _initial(self) -> Tensor:
        config, backbone = self.config, self.backbone
        shape = backbone.embedding_shape
        precise = torch.promote_types(backbone.dtype, torch.float32)
        start = torch.stack([draw.init(shape) for draw in self.draws]).to(backbone.device, precise)
        start = start * config.init_scale
        if config.init in ("text", "features"):
            with torch.no_grad():
                text = [config.init_text]
                start = start + (backbone.encode_prompt(text)[0] if text[0] else backbone.null_prompt()).to(
                    start
                )
        return start

    def _start_from_features(self) -> None:
        """Put the fitted tokens where the first crops' features say."""
        config, tokens = self.config, self._tokens(self.active)
        levels = self.variant.timesteps
        start = FeaturesStart(
            self.backbone, config.layers, tokens, len(self.prompts), config.init_ridge, levels
        )
        first, _ = self._distinct(self.active)
        draws = {n: SeededDraws("features", config.seed, *self._view(self.prompts[n])) for n in first}
        passes = [(n, step) for step in range(config.init_crops) for n in first]
        shape = self._latent_shape()
        noises = [draws[n].noise(step, shape, config.noise) for n, step in passes]

        def work(part: slice) -> None:
            seen = passes[part]
            latents = self._encode([n for n, _ in seen], [self._crops[n][step] for n, step in seen])
            noise = torch.stack(noises[part])
            members = [
                (row, place, self._crops[n][step])
                for place, (n, step) in enumerate(seen)
                for row in self.active
                if self._same[row] == self._same[n]
            ]
            rows, places, crops = (list(column) for column in zip(*members, strict=True))
            centres, shown = self._centres(rows, crops)

            def target(side: int) -> tuple[Tensor, Tensor]:
                return gaussian_target(centres, side, config.sigma, config.pixel_centre), shown

            prompts = self.embeddings.detach()[rows]
            trunk = "null" if config.views == "image" else config.trunk
            start.gather(rows, latents, noise, config.timestep, prompts, target, places, trunk)

        self.batches.map(len(passes), work)
        with torch.no_grad():
            self.embeddings[:, tokens] = start.solve().to(self.embeddings)

    def _tokens(self, rows: Sequence[int]) -> list[int]:
        """The fitted tokens of the prompt that has most."""
        most = max(len(self.prompts[n].items) for n in rows)
        return list(range(self.config.token, self.config.token + most))

    def _encode(self, rows: Sequence[int], crops: Sequence[Crop]) -> Tensor:
        image_ids = [self.prompts[n].image_id for n in rows]
        if self.config.bank_size:
            return torch.stack([self._bank[key] for key in zip(image_ids, crops, strict=True)])
        one = Batches(1)
        latents = [
            encode_crops(self.backbone, self._pixels[image_id], [crop], self.crop_pixels, one)[0]
            for image_id, crop in zip(image_ids, crops, strict=True)
        ]
        return torch.stack(latents)

    def _centres(self, rows: Sequence[int], crops: Sequence[Crop]) -> tuple[Tensor, Tensor]:
        """Places of the queries in their crops, and which of them their crop shows.

        Returns:
            (n, K, 2) as fractions of the crop's side, and (n, K), false too where a prompt has fewer
            items than another.
        """
        num_items = max(len(self._points[n]) for n in rows)
        points = [self._points[n] + [(-1e9, -1e9)] * (num_items - len(self._points[n])) for n in rows]
        corners = torch.tensor([(crop.x, crop.y) for crop in crops], dtype=torch.float64)
        centres = (torch.tensor(points, dtype=torch.float64) - corners[:, None]) / self.crop_pixels
        flips = torch.tensor([crop.flip for crop in crops])
        centres[flips, :, 0] = 1 - centres[flips, :, 0]
        return centres, ((centres >= 0) & (centres <= 1)).all(-1)


def fit_batches(backbone: Backbone, config: FitConfig, variant: AttentionVariant) -> Batches:
    """As many prompts as ``config.pack_size`` says, or as the backbone's device holds, measured once."""
    if config.pack_size != "auto":
        return Batches(config.pack_size)

    def measure() -> int:
        return fitting_size(backbone.device, lambda count: try_pack(backbone, config, variant, count))

    return backbone.batches(f"fit {config} {variant}", measure)


def try_pack(backbone: Backbone, config: FitConfig, variant: AttentionVariant, count: int) -> None:
    """What ``count`` prompts of a step take: one pass of theirs and its gradients, and crops encoded."""
    side = backbone.image_size
    image = torch.zeros(min(count, ENCODE_BATCH), 3, side, side)
    with torch.no_grad():
        latents = backbone.encode(image)
    with torch.enable_grad():  # also where a trainer predicts
        embeds = torch.zeros(count, *backbone.embedding_shape, device=backbone.device, requires_grad=True)
        tokens = range(config.token, config.token + config.items_per_prompt(backbone))
        seen = latents[:1].expand(count, -1, -1, -1)
        noise = torch.zeros_like(seen)
        maps = read_prompts(backbone, seen, noise, config.timestep, embeds, config.layers, variant, tokens)
        largest = config.loss_resolution or max(max(m.size) for m in maps.values())
        resize_maps(maps, largest).square().sum().backward()
