"""Reading the self-attention of a frozen model: images of any size in, affinity graphs out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from diffcorr.attention.base import AttentionRead, AttentionVariant
from diffcorr.attention.capture import capture
from diffcorr.backbones.base import Backbone, LayerInfo, LayerSpec
from diffcorr.data.geometry import image_size, image_to_tensor
from diffcorr.errors import BackboneError, DiffcorrError, UnknownNameError
from diffcorr.segmentation.aggregate import aggregate, restrict
from diffcorr.segmentation.cache import GraphCache, key_of
from diffcorr.segmentation.framing import FITS, Fit, Frame, Grid, frame_image
from diffcorr.types import Box, UInt8Image


class Graph(NamedTuple):
    """What was read of one image.

    Attributes:
        values: (hw, hw) affinity graph, rows sum to 1; or (hw, D) features.
        grid: (h, w).
        box: where the image lies, in cells (left, top, right, bottom).
    """

    values: Tensor
    grid: Grid
    box: Box


class Batch(NamedTuple):
    """What was read of images that the model is shown alike: `places` among all, values (B, hw, ...)."""

    places: list[int]
    values: Tensor
    grid: Grid
    boxes: list[Box]


@dataclass(frozen=True, kw_only=True)
class AttentionReader:
    """Reads self-attention in one pass of a frozen diffusion model.

    Args:
        name: what stands beside its scores.
        timestep: what the model is told of the noise, 0..999.
        add_noise: whether noise of that timestep really is added; the authors of DiffSeg add none.
        layers: self-attention layers that are read, see `Backbone.resolve_layers`.
        sides: resolutions that are used, by the side that they have for a square input, e.g. [64, 32], or how
            many of the largest; by default all that the layers have.
        fit: how an image is shown to the model: ``stretch``, ``crop``, ``letterbox`` or ``native``, see
            `frame_image`. Of pixels beyond a crop, each takes the segment of the nearest one inside.
        input_size: side of the model's square input in pixels; by default the one it was trained for.
        antialias: whether an image that shrinks to the input is low-passed; the authors do without.
        cache: folder in which what was read is kept; by default it is not.
        cache_gib: bound on that folder's size in GiB.
        seed: of noise and random starts; the same for every image, so that they do not depend on their order.

    Raises:
        DiffcorrError: a value outside of its range, or an unknown fit.
    """

    name: str
    timestep: int = 300
    add_noise: bool = False
    layers: LayerSpec = "all"
    sides: Sequence[int] | int | None = None
    fit: Fit = "stretch"
    input_size: int | None = None
    antialias: bool = True
    cache: str | None = None
    cache_gib: float = 8.0
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.timestep <= 999:
            raise DiffcorrError(f"expected a timestep in 0..999, found {self.timestep}")
        if isinstance(self.sides, int) and self.sides < 1:
            raise DiffcorrError(f"expected one or more sides, found sides={self.sides}; null uses all")
        if self.fit not in FITS:
            raise UnknownNameError("fit", self.fit, FITS)

    @property
    def dtype(self) -> torch.dtype:
        """Float type of the graphs."""
        return torch.float32

    def affinity(self, images: Sequence[UInt8Image], backbone: Backbone) -> list[Graph]:
        """What is read of each image; what a sweep over the settings of `group` can keep."""
        graphs = {
            place: Graph(values, batch.grid, box)
            for batch in self.read(images, backbone)
            for place, values, box in zip(batch.places, batch.values, batch.boxes, strict=True)
        }
        return [graphs[place] for place in range(len(images))]

    @torch.no_grad()
    def read(self, images: Sequence[UInt8Image], backbone: Backbone | None) -> Iterator[Batch]:
        """Read the images in batches of those that the model is shown alike.

        Raises:
            BackboneError: no backbone, or an input size that does not suit it.
        """
        if backbone is None:
            raise BackboneError(f"{self.name} reads self-attention and needs a backbone; none was given")
        side, multiple = self._input_size(backbone)
        frames = [frame_image(image_size(image), side, self.fit, multiple) for image in images]
        alike: dict[object, list[int]] = {}
        for place, frame in enumerate(frames):
            alike.setdefault((frame.geometry.size, frame.geometry.destination), []).append(place)
        for places in alike.values():
            full = self._grid(backbone, frames[places[0]])
            rows, columns = frames[places[0]].window(full)
            values = self._cached([images[i] for i in places], [frames[i] for i in places], full, backbone)
            grid = (rows.stop - rows.start, columns.stop - columns.start)
            yield Batch(places, values, grid, [frames[i].box(full) for i in places])

    def _cached(
        self, images: Sequence[UInt8Image], frames: Sequence[Frame], grid: Grid, backbone: Backbone
    ) -> Tensor:
        """The values (B, hw, ...) of images that are shown alike, from the cache where it has them."""

        def compute(chosen: Sequence[int]) -> Tensor:
            latents = self._latents([images[i] for i in chosen], [frames[i] for i in chosen], backbone)
            return self._values(latents, frames[0].window(grid), grid, backbone)

        if self._store is None:
            return compute(range(len(images)))
        settings = self._identity(backbone)
        keys = [key_of(image, settings) for image in images]
        found = {i: values for i, key in enumerate(keys) if (values := self._store.get(key)) is not None}
        if missing := [i for i in range(len(keys)) if i not in found]:
            for i, values in zip(missing, compute(missing), strict=True):
                self._store.add(keys[i], values)
                found[i] = values
        return torch.stack([found[i].to(backbone.device) for i in range(len(keys))])

    @cached_property
    def _store(self) -> GraphCache | None:
        return None if self.cache is None else GraphCache(self.cache, self.cache_gib)

    def _identity(self, backbone: Backbone) -> dict[str, object]:
        """All that decides what is read of an image."""
        kind = backbone.device.type
        return {
            "backbone": backbone.fingerprint,
            "precision": str(backbone.dtype)
            + (str(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else ""),
            "dtype": str(self.dtype),
            "layers": [layer.name for layer in self._layers(backbone)],
            "timestep": self.timestep,
            "noise": self.seed if self.add_noise else None,
            "fit": self.fit,
            "input_size": self._input_size(backbone)[0],
            "antialias": self.antialias,
        }

    def _latents(self, images: Sequence[UInt8Image], frames: Sequence[Frame], backbone: Backbone) -> Tensor:
        pixels = [
            image_to_tensor(image, frame.geometry, self.antialias)
            for image, frame in zip(images, frames, strict=True)
        ]
        latents = backbone.encode(torch.stack(pixels).to(backbone.device, backbone.dtype))
        if self.add_noise:
            generator = torch.Generator().manual_seed(self.seed)
            noise = torch.randn(latents.shape[1:], generator=generator).to(latents)
            latents = backbone.add_noise(latents, noise.expand_as(latents), self.timestep)
        return latents

    def _values(self, latents: Tensor, window: tuple[slice, slice], grid: Grid, backbone: Backbone) -> Tensor:
        """Aggregated attention (B, hw, hw) of the cells in the window of the whole input's grid."""
        layers = [layer.index for layer in self._layers(backbone)]
        with capture(backbone, layers, "self", variant=LayerSum()) as maps:
            backbone.denoise(latents, self.timestep, backbone.null_prompt())
        sizes = [layer.size for layer in maps.values()]
        # the maps of one size are one and the same running sum
        means = {layer.size: layer.tensor for layer in maps.values()}
        for size, total in means.items():
            total /= sizes.count(size)
        return restrict(aggregate(means, grid=grid, dtype=self.dtype), grid, window)

    def _layers(self, backbone: Backbone) -> list[LayerInfo]:
        """The layers that are read: those of the used resolutions."""
        chosen = backbone.resolve_layers("self", self.layers)
        latent = self._input_size(backbone)[0] // backbone.latent_downscale
        side_of = {layer.index: -(-latent // layer.downscale) for layer in chosen}
        largest = sorted(set(side_of.values()), reverse=True)
        used = largest
        if self.sides is not None:
            used = largest[: self.sides] if isinstance(self.sides, int) else list(self.sides)
        if unknown := [side for side in used if side not in largest]:
            raise UnknownNameError("attention resolution", unknown[0], largest)
        return [layer for layer in chosen if side_of[layer.index] in used]

    def _grid(self, backbone: Backbone, frame: Frame) -> Grid:
        """Cells of the finest map that is used, over the whole input."""
        downscale = min(layer.downscale for layer in self._layers(backbone))
        width, height = (pixels // backbone.latent_downscale for pixels in frame.geometry.size)
        return -(-height // downscale), -(-width // downscale)

    def _input_size(self, backbone: Backbone) -> tuple[int, int]:
        """Side of the square input, and what one cell of the coarsest map covers, in pixels."""
        multiple = backbone.latent_downscale * max(layer.downscale for layer in backbone.layers("self"))
        side = backbone.image_size if self.input_size is None else self.input_size
        if self.input_size is not None and (side < multiple or side % multiple):
            raise BackboneError(
                f"expected input_size as a multiple of {multiple} for {backbone.name}, found {side}"
            )
        return side, multiple


class LayerSum(AttentionVariant):
    """Mean over heads, summed over the layers of one resolution, in one buffer for each.

    A layer's map is the running sum of all layers of its resolution so far: memory does not grow with the
    number of layers and heads. While a layer is read, scores and probabilities of one head are held beside
    the sum. For one pass: a new one starts from zero.
    """

    def __init__(self) -> None:
        self._sums: dict[int, Tensor] = {}

    def __call__(self, read: AttentionRead) -> Tensor:
        """The running sum (B, N, N)."""
        num_heads, num_positions = read.query.shape[1:3]
        for c in range(num_heads):
            probs = read.head(c).probs[:, 0].div_(num_heads)
            if num_positions in self._sums:
                self._sums[num_positions] += probs
            else:
                self._sums[num_positions] = probs
        return self._sums[num_positions]
