"""What every frozen diffusion model offers: encode, noise, denoise, and attention layers by name."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from diffcorr.errors import LayerError, UnknownNameError
from diffcorr.memory import Batches

Kind = Literal["cross", "self"]
LayerSpec = str | Sequence[int | str]
"""``'paper'``, ``'all'``, or a list of indices (paper's counting) and full module names."""


@dataclass(frozen=True)
class LayerInfo:
    """One attention layer.

    Attributes:
        name: module path, e.g. ``up_blocks.1.attentions.0.transformer_blocks.0.attn2``.
        index: position among all layers of its kind in the order down, mid, up: the counting of
            Hedlin et al. 2023 (SD 1.x cross-attention: 0..15).
        kind: ``'cross'`` or ``'self'``.
        num_heads: number of heads C.
        downscale: side of the latent over side of the map.
        joint: whether image and text share one softmax: the kind then names the block of it that is
            read, image-to-text or image-to-image.
    """

    name: str
    index: int
    kind: Kind
    num_heads: int
    downscale: int
    joint: bool = False


@dataclass(frozen=True)
class Needs:
    """What a model asks of its input, and how it was trained.

    Attributes:
        family: of models that one class is for.
        image_size: native side of its square input in pixels.
        multiple: of which the sides of an input have to be, in pixels.
        latent_channels, latent_downscale: c, and side of the image over side of the latent.
        latent_scale, latent_shift: latents are (VAE mean - shift) x scale.
        prediction: ``'epsilon'``, ``'v_prediction'`` or ``'flow'``; what the denoiser predicts is never
            used here.
        timestep: what a timestep means.
        embedding: (P, D) of the embedding that is optimised.
        prompt: which embeddings are optimised and which are fixed.
    """

    family: str
    image_size: int
    multiple: int
    latent_channels: int
    latent_downscale: int
    latent_scale: float
    latent_shift: float
    prediction: str
    timestep: str
    embedding: tuple[int, int]
    prompt: str


class StopForward(Exception):  # noqa: N818 - no error, like StopIteration
    """Raised inside a forward pass by whoever has read enough; ``Backbone.denoise`` catches it."""


class LatentStore(Protocol):
    """Where encoded crops are kept for other runs, see ``diffcorr.stores.latents``."""

    def key(self, image_CHW: Tensor, crop_pixels: int) -> str:
        """Identity of an image's crops."""

    def get(self, key: str, crops: Iterable[tuple[int, int, bool]]) -> dict[tuple[int, int, bool], Tensor]:
        """Those of the crops (left, top, mirrored) that are there, (c, h, w)."""

    def add(self, key: str, latents: Iterable[tuple[tuple[int, int, bool], Tensor]]) -> None:
        """Keep crops with their latents (c, h, w)."""


class Backbone(nn.Module, ABC):
    """A frozen latent diffusion model, always in eval mode, without gradients to its weights.

    Attributes:
        name: how the user calls it.
        image_size: native side of its square input in pixels.
        paper_layers: indices of the cross-attention layers that prompt fitting reads.
        latent_downscale: side of the image over side of the latent.
        embedding_shape: (P, D), number of prompt tokens and width of one.
        fingerprint: hash of configuration and weights, equal across processes and precisions.
        prompt_is_context: whether cross-attention takes its keys from the prompt embeddings themselves:
            only then prompts can be read without being followed, and a fit can start from features.
        map_origin: (h, w) of the latents of the last ``denoise``, from which maps get their size.
        latent_store: where crops that it encodes are kept for other runs; None = nowhere.
    """

    name: str
    image_size: int
    paper_layers: tuple[int, ...]
    latent_downscale: int
    embedding_shape: tuple[int, int]
    fingerprint: str
    prompt_is_context: bool = True
    map_origin: tuple[int, int] | None = None
    latent_store: LatentStore | None = None
    _null: Tensor | None = None
    _batches: dict[str, Batches] | None = None

    @abstractmethod
    def encode(self, images_BCHW: Tensor) -> Tensor:
        """Scaled latents (B, c, h, w) of images (B, 3, H, W) in [-1, 1]; the mean, no sampling."""

    @abstractmethod
    def add_noise(self, latents: Tensor, noise: Tensor, timestep: int) -> Tensor:
        """Latents at ``timestep`` of the training schedule, of the latents' shape."""

    @abstractmethod
    def denoise(
        self, latents: Tensor, timestep: int, prompt_embeds_BPD: Tensor, rows: Sequence[int] | None = None
    ) -> Tensor | None:
        """One pass of the denoiser; its output, or None where a reader has stopped it early.

        Args:
            latents: (B, c, h, w); with ``rows`` fewer, each seen by several prompts.
            timestep: 0..999 of the training schedule.
            prompt_embeds_BPD: one for each row, or one for all.
            rows: B places in ``latents``, of the one that each prompt sees; what no prompt has
                touched yet is computed once for each.
        """

    @abstractmethod
    def features(self, latents: Tensor, timestep: int, prompt_embeds_BPD: Tensor, block: int) -> Tensor:
        """Output (B, D, h, w) of the block (of a U-Net: up block) ``block``; nothing after it is run."""

    @abstractmethod
    def encode_prompt(self, texts: Sequence[str]) -> tuple[Tensor, list[list[str]]]:
        """Embeddings (B, P, D) of the texts, and the P tokens of each as strings."""

    @abstractmethod
    def attention_modules(self) -> Mapping[str, nn.Module]:
        """All attention modules by module path, in the order in which the denoiser runs them."""

    @abstractmethod
    def layers(self, kind: Kind = "cross") -> tuple[LayerInfo, ...]:
        """All layers of that kind in the order down, mid, up."""

    @abstractmethod
    def needs(self) -> Needs:
        """What the model asks of its input, and how it was trained."""

    def null_prompt(self) -> Tensor:
        """Embedding (1, P, D) of the empty text, computed once."""
        kept = self._null
        if kept is None or (kept.device, kept.dtype) != (self.device, self.dtype):
            with torch.no_grad():
                kept = self._null = self.encode_prompt([""])[0].to(self.device, self.dtype)
        return kept

    def batches(self, work: str, measure: Callable[[], int]) -> Batches:
        """How many items of some work run at once here: measured once, and what memory has taught is kept.

        Args:
            work: what decides how much memory an item takes.
            measure: how many items to begin with.
        """
        if self._batches is None:
            self._batches = {}
        key = f"{work}, {self.device}, {self.dtype}"
        if key not in self._batches:
            self._batches[key] = Batches(measure())
        return self._batches[key]

    def identity(self) -> dict[str, object]:
        """What results of this model depend on: for stores to compare."""
        return {
            "fingerprint": self.fingerprint,
            "image_size": self.image_size,
            "paper_layers": list(self.paper_layers),
            "dtype": str(self.dtype).removeprefix("torch."),
        }

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the weights."""
        return next(self.parameters()).dtype

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def train(self, mode: bool = True) -> Backbone:
        """Stay in eval mode, whatever a trainer asks for."""
        return super().train(False)

    def resolve_layers(self, kind: Kind, spec: LayerSpec) -> tuple[LayerInfo, ...]:
        """The layers that ``spec`` means, in the order in which they run.

        Raises:
            UnknownNameError: an index or a name that this backbone does not have.
            LayerError: an empty ``spec``.
        """
        known = self.layers(kind)
        if isinstance(spec, str) and spec == "all":
            return known
        if isinstance(spec, str) and spec == "paper":
            if kind != "cross":
                raise LayerError("expected layers='all' or a list for self-attention, found 'paper'")
            spec = self.paper_layers
        wanted = [spec] if isinstance(spec, str) else list(spec)
        if not wanted:
            raise LayerError(
                f"expected at least one {kind}-attention layer, found none: use 'paper' or 'all'"
            )
        by_key: dict[int | str, LayerInfo] = {layer.index: layer for layer in known}
        by_key |= {layer.name: layer for layer in known}
        for key in wanted:
            if key not in by_key:
                raise UnknownNameError(
                    f"{kind}-attention layer of {self.name}",
                    key,
                    [f"{layer.index}={layer.name}" for layer in known],
                )
        chosen = {by_key[key].index for key in wanted}
        return tuple(layer for layer in known if layer.index in chosen)


def fingerprint(
    config: Mapping[str, object], parameters: Iterable[tuple[str, Tensor]], samples: int = 16
) -> str:
    """Short hash of a configuration and of ``samples`` evenly spaced values of every tensor.

    A sample tells trained weights apart as surely as all values do, at a thousandth of the time.
    """
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    for name, tensor in parameters:
        flat = tensor.detach().flatten()
        picks = flat[torch.linspace(0, len(flat) - 1, samples, dtype=torch.float64).long()]
        digest.update(f"{name}{tuple(tensor.shape)}".encode())
        digest.update(picks.float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
