"""What all latent diffusion models share: an autoencoder, a noise schedule, prompts."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor, nn

from diffcorr.backbones.base import Kind, LayerInfo, Needs, StopForward, fingerprint
from diffcorr.backbones.pretrained import PretrainedBackbone
from diffcorr.backbones.stem import shared
from diffcorr.errors import BackboneError, UnknownNameError


class LatentBackbone(PretrainedBackbone):
    """A frozen denoiser over the latents of an ``AutoencoderKL``.

    A family says which denoiser it is for, calls it in ``_predict`` and lists its attention layers.

    Args:
        denoiser: U-Net or transformer.
        vae: the autoencoder.
        scheduler: its ``alphas_cumprod`` say how much noise a timestep has.
        texts: text encoders and tokenizers by the names of ``text_parts``; those that are None are
            absent, and ``encode_prompt`` raises.
        width: of one token's embedding.
        name, paper_layers, image_size: see ``from_pretrained``.

    Attributes:
        optional_texts: those of ``text_parts`` without which prompts can be encoded.
        num_tokens: P, at most, and where there is no tokenizer to ask.
        prompt_note: which embeddings are optimised and which are fixed.
        time_note: what a timestep means.
    """

    optional_texts: ClassVar[Sequence[str]] = ()
    num_tokens: ClassVar[int] = 77
    prompt_note: ClassVar[str]
    time_note: ClassVar[str] = "0..999 of its own diffusion schedule"

    def __init__(
        self,
        denoiser: Any,
        vae: AutoencoderKL,
        scheduler: DDIMScheduler,
        texts: Mapping[str, Any],
        width: int,
        *,
        name: str,
        paper_layers: Sequence[int] | None,
        image_size: int | None,
    ) -> None:
        super().__init__()
        self.name = name
        setattr(self, self.folder, denoiser)
        self.vae = vae
        for part in self.text_parts:
            setattr(self, part, texts.get(part))
        self.requires_grad_(False).eval()
        # no buffer: a cast of the weights to half precision must not touch the schedule
        self.alphas_cumprod: Tensor = scheduler.alphas_cumprod.double()
        self._alphas: list[float] = self.alphas_cumprod.tolist()
        self.prediction = "flow" if self.flow else str(scheduler.config["prediction_type"])
        self.latent_downscale = 2 ** (len(vae.config["block_out_channels"]) - 1)
        self._random: dict[str, Tensor] = {}
        self._pooled: Tensor | None = None
        self.embedding_shape = (self._count_tokens(), width)
        self.image_size = image_size or self._native_size()
        config = {
            self.folder: _plain(denoiser.config),
            "scale": vae.config["scaling_factor"],
            "alphas": scheduler.alphas_cumprod[::100].tolist(),
        }
        # only what an embedding depends on: the decoder and the text encoder may differ
        weights = [*denoiser.named_parameters(), *vae.encoder.named_parameters()]
        self.fingerprint = "meta" if self.device.type == "meta" else fingerprint(config, weights)
        self._modules_by_path = self._attention_modules()
        for module in self._modules_by_path.values():
            module.set_processor(self._processor())
        self._stem: list[nn.Module] = []
        self._layers: dict[str, tuple[LayerInfo, ...]] = {
            "cross": self._layer_infos("cross"),
            "self": self._layer_infos("self"),
        }
        self.paper_layers = tuple(paper_layers) if paper_layers is not None else self._default_layers()
        self.resolve_layers("cross", self.paper_layers)

    @abstractmethod
    def _predict(self, latents: Tensor, timestep: int, embeds_BPD: Tensor) -> Tensor:
        """Output (B, c, h, w) of the denoiser."""

    @abstractmethod
    def _encode_prompt(self, texts: Sequence[str]) -> tuple[Tensor, list[list[str]]]:
        """``encode_prompt`` on the text encoders' device."""

    @abstractmethod
    def _attention_modules(self) -> dict[str, Any]:
        """All attention modules by module path, in the order in which they run."""

    @abstractmethod
    def _processor(self) -> Any:
        """The attention processor of this family."""

    @abstractmethod
    def _layer_infos(self, kind: Kind) -> tuple[LayerInfo, ...]:
        """All layers of that kind in the order in which they run."""

    @abstractmethod
    def _default_layers(self) -> tuple[int, ...]:
        """Layers that prompt fitting reads unless told otherwise."""

    @abstractmethod
    def _blocks(self) -> Sequence[nn.Module]:
        """What ``features`` can stop behind."""

    @abstractmethod
    def _grid(self, output: Any) -> Tensor:
        """Output of a block as (B, D, h, w)."""

    def encode(self, images_BCHW: Tensor) -> Tensor:
        """Scaled latents (B, c, h, w): (VAE mean - shift) x scale."""
        precision = next(self.vae.parameters()).dtype
        mean = self.vae.encode(images_BCHW.to(self.device, precision)).latent_dist.mean
        config = self.vae.config
        return ((mean - (config["shift_factor"] or 0.0)) * config["scaling_factor"]).to(self.dtype)

    def alpha(self, timestep: int) -> float:
        """Cumulative alpha at ``timestep``: the share of the signal in the variance.

        Raises:
            BackboneError: outside of 0..999.
        """
        if not 0 <= timestep < len(self._alphas):
            raise BackboneError(f"expected a timestep in 0..{len(self._alphas) - 1}, found {timestep}")
        return self._alphas[timestep]

    def add_noise(self, latents: Tensor, noise: Tensor, timestep: int) -> Tensor:
        """sqrt(a) latents + sqrt(1 - a) noise, a = cumulative alpha at ``timestep`` (0..999)."""
        alpha = self.alpha(timestep)
        return alpha**0.5 * latents + (1 - alpha) ** 0.5 * noise.to(latents)

    def denoise(
        self, latents: Tensor, timestep: int, prompt_embeds_BPD: Tensor, rows: Sequence[int] | None = None
    ) -> Tensor | None:
        """Prediction (B, c, h, w) of the denoiser, or None where a reader has stopped the pass."""
        self.map_origin = (latents.shape[-2], latents.shape[-1])
        seen = range(len(latents)) if rows is None else rows
        if rows is not None:
            latents = latents[list(rows)]
        embeds = prompt_embeds_BPD.to(self.dtype).expand(len(latents), -1, -1)
        try:
            with shared(self._stem, seen):
                return self._predict(latents, timestep, embeds)
        except StopForward:
            return None

    def features(self, latents: Tensor, timestep: int, prompt_embeds_BPD: Tensor, block: int) -> Tensor:
        """Output (B, D, h, w) of a block: an up block of a U-Net (0 = the lowest resolution), or any of
        a transformer."""
        blocks = self._blocks()
        if not 0 <= block < len(blocks):
            kind = "up block" if self.folder == "unet" else "block"
            raise UnknownNameError(f"{kind} of {self.name}", block, range(len(blocks)))
        kept: list[Tensor] = []

        def keep(module: nn.Module, args: Any, output: Any) -> None:
            kept.append(self._grid(output))
            raise StopForward

        handle = blocks[block].register_forward_hook(keep)
        try:
            self.denoise(latents, timestep, prompt_embeds_BPD)
        finally:
            handle.remove()
        return kept[0]

    def encode_prompt(self, texts: Sequence[str]) -> tuple[Tensor, list[list[str]]]:
        """Embeddings (B, P, D) of the texts, and the P tokens of each as strings."""
        embeds, tokens = self._encode_prompt(texts)
        return embeds.to(self.device), tokens

    def null_prompt(self) -> Tensor:
        """Embedding (1, P, D) of the empty text; fixed random numbers where the weights are random."""
        if "prompt" in self._random:
            return self._random["prompt"].to(self.device, self.dtype)
        return super().null_prompt()

    def pooled(self) -> Tensor:
        """Pooled embedding (1, D) of the empty text, which the denoiser sees beside whatever prompt."""
        if "pooled" in self._random:
            return self._random["pooled"].to(self.device, self.dtype)
        if self._pooled is None:
            with torch.no_grad():
                self._pooled = self._pool([""])
        return self._pooled.to(self.device, self.dtype)

    def _pool(self, texts: Sequence[str]) -> Tensor:
        raise BackboneError(f"expected a denoiser that sees a pooled embedding, found that of {self.name}")

    @property
    def dtype(self) -> torch.dtype:
        """Precision of the denoiser's weights."""
        found: torch.dtype = next(self.denoiser.parameters()).dtype
        return found

    def _need_texts(self) -> None:
        """BackboneError where a text encoder or tokenizer is missing."""
        needed = [part for part in self.text_parts if part not in self.optional_texts]
        if missing := [part for part in needed if getattr(self, part) is None]:
            raise BackboneError(
                f"expected a text encoder and a tokenizer in {self.name}, found none ({missing[0]}): "
                "use a complete diffusers folder or random initial embeddings"
            )

    def attention_modules(self) -> Mapping[str, Any]:
        """All attention modules of the denoiser by module path, in the order in which they run."""
        return self._modules_by_path

    def layers(self, kind: Kind = "cross") -> tuple[LayerInfo, ...]:
        """All layers of that kind in the order down, mid, up."""
        if kind not in self._layers:
            raise UnknownNameError("kind of attention", kind, self._layers)
        return self._layers[kind]

    def needs(self) -> Needs:
        """What this model asks of its input, and how it was trained."""
        config = self.vae.config
        coarsest = max(layer.downscale for layers in self._layers.values() for layer in layers)
        return Needs(
            family=type(self).__name__.removesuffix("Backbone"),
            image_size=self.image_size,
            multiple=self.latent_downscale * coarsest,
            latent_channels=config["latent_channels"],
            latent_downscale=self.latent_downscale,
            latent_scale=config["scaling_factor"],
            latent_shift=config["shift_factor"] or 0.0,
            prediction=self.prediction,
            timestep=self.time_note,
            embedding=self.embedding_shape,
            prompt=self.prompt_note,
        )

    def _count_tokens(self) -> int:
        """P: what the tokenizer takes, or ``num_tokens``."""
        tokenizer = getattr(self, "tokenizer", None)
        return tokenizer.model_max_length if tokenizer is not None else self.num_tokens

    def _native_size(self) -> int:
        side = self.denoiser.config["sample_size"]
        if not isinstance(side, int):
            raise BackboneError(
                f"expected a square sample_size in the denoiser's config, found {side}: set image_size"
            )
        return side * self.latent_downscale


def tokenized(tokenizer: Any, texts: Sequence[str], length: int) -> tuple[Tensor, Tensor, list[list[str]]]:
    """Token ids (B, length), which of them are no padding (B, length), and the tokens as strings."""
    found = tokenizer(
        list(texts), padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    )
    strings = [list(tokenizer.convert_ids_to_tokens(row.tolist())) for row in found.input_ids]
    return found.input_ids, found.attention_mask, strings


def _plain(config: Mapping[str, object]) -> dict[str, object]:
    """A diffusers config without its bookkeeping (versions, paths)."""
    return {key: value for key, value in config.items() if not key.startswith("_")}
