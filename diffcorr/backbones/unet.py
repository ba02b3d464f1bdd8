"""Stable-Diffusion-style models: a ``UNet2DConditionModel`` over the latents of an ``AutoencoderKL``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers.models.attention import FeedForward
from diffusers.models.attention_processor import Attention
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.utils import logging as diffusers_logging
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer
from transformers.utils import logging as transformers_logging

from diffcorr.backbones.base import Backbone, Kind, LayerInfo, StopForward, fingerprint
from diffcorr.backbones.catalog import CATALOG, SD_SCHEDULE
from diffcorr.backbones.processor import AttentionProcessor
from diffcorr.backbones.stem import shared, stem_of
from diffcorr.errors import BackboneError, UnknownNameError

DEFAULT_NUM_TOKENS = 77  # of CLIP, where a folder has no tokenizer to ask


class UNetBackbone(Backbone):
    """A frozen latent diffusion model with a conditional U-Net.

    Args:
        unet: the denoiser.
        vae: the autoencoder.
        scheduler: only its ``alphas_cumprod`` are used.
        text_encoder, tokenizer: may be absent; then ``encode_prompt`` raises.
        name: how the user calls it.
        paper_layers: cross-attention layers that prompt fitting reads; None = the lowest
            resolution of the up path with cross-attention and the first layer of the next one,
            which are layers 7..10 of SD 1.x (Hedlin et al. 2023, section 4).
        image_size: side of the input in pixels; None = the side the U-Net was configured for.
    """

    def __init__(
        self,
        unet: UNet2DConditionModel,
        vae: AutoencoderKL,
        scheduler: DDIMScheduler,
        text_encoder: CLIPTextModel | None = None,
        tokenizer: CLIPTokenizer | None = None,
        *,
        name: str = "unet",
        paper_layers: Sequence[int] | None = None,
        image_size: int | None = None,
    ) -> None:
        super().__init__()
        self.name = name
        self.unet, self.vae, self.text_encoder, self.tokenizer = unet, vae, text_encoder, tokenizer
        self.requires_grad_(False).eval()
        # no buffer: a cast of the weights to half precision must not touch the schedule
        self.alphas_cumprod: Tensor = scheduler.alphas_cumprod.double()
        self.latent_downscale = 2 ** (len(vae.config["block_out_channels"]) - 1)
        self._random_prompt: Tensor | None = None
        num_tokens = tokenizer.model_max_length if tokenizer is not None else DEFAULT_NUM_TOKENS
        self.embedding_shape = (num_tokens, unet.config["cross_attention_dim"])
        self.image_size = image_size or self._native_size()
        config = {
            "unet": _plain(unet.config),
            "scale": vae.config["scaling_factor"],
            "alphas": scheduler.alphas_cumprod[::100].tolist(),
        }
        # only what an embedding depends on: the decoder and the text encoder may differ
        weights = [*unet.named_parameters(), *vae.encoder.named_parameters()]
        self.fingerprint = fingerprint(config, weights)
        self._modules_by_path = _attention_modules(unet)
        processor: Any = AttentionProcessor()  # without a declared relation to the library's own
        for module in self._modules_by_path.values():
            module.set_processor(processor)
        self._stem = stem_of(unet)
        self._layers = {kind: _layers(unet, self._modules_by_path, kind) for kind in ("cross", "self")}
        self.paper_layers = tuple(paper_layers) if paper_layers is not None else self._default_layers()
        self.resolve_layers("cross", self.paper_layers)

    @classmethod
    def from_pretrained(
        cls,
        path_or_name: str | Path,
        *,
        name: str | None = None,
        paper_layers: Sequence[int] | None = None,
        dtype: str | torch.dtype = torch.float32,
        device: str | torch.device = "cpu",
        weights: Literal["pretrained", "random"] = "pretrained",
        image_size: int | None = None,
        channels_last: bool = False,
        compile_blocks: bool = False,
    ) -> UNetBackbone:
        """Load a diffusers folder, a hub name, or a name of the catalog (``tiny``, ``sd15``, ...).

        Only safetensors are read and no code of the folder is run. ``weights='random'`` builds the
        true architecture, seeded, without a download. ``channels_last`` and ``compile_blocks``
        (``torch.compile`` of all that lies between attention layers) change nothing but speed.

        Raises:
            UnknownNameError: neither a folder, nor a known name, nor of the form owner/name.
            BackboneError: a folder or repository that holds no such model.
        """
        given = str(path_or_name)
        entry = CATALOG.get(given)
        path = entry.path if entry else given
        options: dict[str, Any] = {"name": name or Path(given).name, "image_size": image_size}
        if weights == "random":
            backbone = cls._random(path, entry.unet if entry else None, entry.vae if entry else {}, options)
        elif weights == "pretrained":
            backbone = cls._load(path, given, options)
        else:
            raise UnknownNameError("weights", weights, ["pretrained", "random"])
        if paper_layers is not None:
            backbone.resolve_layers("cross", paper_layers)
            backbone.paper_layers = tuple(paper_layers)
        backbone.to(device=device, dtype=_dtype(dtype))
        if channels_last:
            backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if compile_blocks:
            backbone._compile_blocks()
        return backbone

    def _compile_blocks(self) -> None:
        """Compile in place; attention stays as it is, for its processors come and go."""
        for module in self.unet.modules():
            if isinstance(module, ResnetBlock2D | FeedForward):
                module.compile()

    @classmethod
    def _load(cls, path: str, given: str, options: dict[str, Any]) -> UNetBackbone:
        local = Path(path).is_dir()
        if local:
            _check_folder(Path(path))
        elif given == "tiny":
            raise BackboneError(f"expected the weights of 'tiny' in {path}, found no such folder: reinstall")
        elif path.count("/") != 1 or path.startswith((".", "/", "~")) or Path(path).exists():
            raise UnknownNameError(
                "backbone", given, [*CATALOG, "any diffusers folder", "a hub name owner/name"]
            )

        def part(loader: Any, folder: str, required: bool = True, **kwargs: Any) -> Any:
            if local and not required and not (Path(path) / folder).is_dir():
                return None
            return loader.from_pretrained(path, subfolder=folder, **kwargs)

        safe: dict[str, Any] = {
            "use_safetensors": True,
            "torch_dtype": torch.float32,
            "low_cpu_mem_usage": False,
        }
        try:
            with _no_bars():
                unet = part(UNet2DConditionModel, "unet", **safe)
                vae = part(AutoencoderKL, "vae", **safe)
                scheduler = part(DDIMScheduler, "scheduler", required=False) or DDIMScheduler(**SD_SCHEDULE)
                text_encoder = part(
                    CLIPTextModel, "text_encoder", required=False, use_safetensors=True, dtype=torch.float32
                )
                tokenizer = part(CLIPTokenizer, "tokenizer", required=False)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise BackboneError(
                f"expected a Stable Diffusion model (diffusers, safetensors) in {given}, found: {reason}"
            ) from error
        return cls(unet, vae, scheduler, text_encoder, tokenizer, **options)

    @classmethod
    def _random(
        cls, path: str, unet: dict[str, Any] | None, vae: dict[str, Any], options: dict[str, Any]
    ) -> UNetBackbone:
        if unet is None:
            _check_folder(Path(path))
            unet = UNet2DConditionModel.load_config(path, subfolder="unet")
            vae = AutoencoderKL.load_config(path, subfolder="vae")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            parts = (UNet2DConditionModel.from_config(unet), AutoencoderKL.from_config(vae))
            backbone = cls(*parts, DDIMScheduler(**SD_SCHEDULE), **options)
            # there is no text encoder to ask, and what reads the empty prompt shall run all the same
            backbone._random_prompt = torch.randn(1, *backbone.embedding_shape)
        return backbone

    def encode(self, images_BCHW: Tensor) -> Tensor:
        """Scaled latents (B, c, h, w): (VAE mean - shift) x scale."""
        mean = self.vae.encode(images_BCHW.to(self.device, self.dtype)).latent_dist.mean
        config = self.vae.config
        return (mean - (config["shift_factor"] or 0.0)) * config["scaling_factor"]

    def add_noise(self, latents: Tensor, noise: Tensor, timestep: int) -> Tensor:
        """sqrt(a) latents + sqrt(1 - a) noise, a = cumulative alpha at ``timestep`` (0..999)."""
        if not 0 <= timestep < len(self.alphas_cumprod):
            raise BackboneError(f"expected a timestep in 0..{len(self.alphas_cumprod) - 1}, found {timestep}")
        alpha = float(self.alphas_cumprod[timestep])
        return alpha**0.5 * latents + (1 - alpha) ** 0.5 * noise.to(latents)

    def denoise(
        self, latents: Tensor, timestep: int, prompt_embeds_BPD: Tensor, rows: Sequence[int] | None = None
    ) -> Tensor | None:
        """Prediction (B, c, h, w) of the U-Net, or None where a reader has stopped the pass."""
        self.map_origin = (latents.shape[-2], latents.shape[-1])
        seen = range(len(latents)) if rows is None else rows
        if rows is not None:
            latents = latents[list(rows)]
        embeds = prompt_embeds_BPD.to(self.dtype).expand(len(latents), -1, -1)
        try:
            with shared(self._stem, seen):
                return self.unet(latents, timestep, embeds).sample
        except StopForward:
            return None

    def features(self, latents: Tensor, timestep: int, prompt_embeds_BPD: Tensor, block: int) -> Tensor:
        """Output (B, D, h, w) of up block ``block`` (0 = the lowest resolution)."""
        blocks = self.unet.up_blocks
        if not 0 <= block < len(blocks):
            raise UnknownNameError(f"up block of {self.name}", block, range(len(blocks)))
        kept: list[Tensor] = []

        def keep(module: nn.Module, args: Any, output: Tensor) -> None:
            kept.append(output)
            raise StopForward

        handle = blocks[block].register_forward_hook(keep)
        try:
            self.denoise(latents, timestep, prompt_embeds_BPD)
        finally:
            handle.remove()
        return kept[0]

    def encode_prompt(self, texts: Sequence[str]) -> tuple[Tensor, list[list[str]]]:
        """Last hidden states (B, P, D) of the text encoder and the padded tokens as strings."""
        if self.text_encoder is None or self.tokenizer is None:
            raise BackboneError(
                f"expected a text encoder and a tokenizer in {self.name}, found none: "
                "use a complete diffusers folder or random initial embeddings"
            )
        tokens = self.tokenizer(
            list(texts),
            padding="max_length",
            max_length=self.embedding_shape[0],
            truncation=True,
            return_tensors="pt",
        ).input_ids
        embeds = self.text_encoder(tokens.to(self.device))[0]
        return embeds, [list(self.tokenizer.convert_ids_to_tokens(row.tolist())) for row in tokens]

    def null_prompt(self) -> Tensor:
        """Embedding (1, P, D) of the empty text; fixed random numbers where the weights are random."""
        if self._random_prompt is not None:
            return self._random_prompt.to(self.device, self.dtype)
        return super().null_prompt()

    def attention_modules(self) -> Mapping[str, Attention]:
        """All attention modules of the U-Net by module path, in the order in which they run."""
        return self._modules_by_path

    def layers(self, kind: Kind = "cross") -> tuple[LayerInfo, ...]:
        """All layers of that kind in the order down, mid, up."""
        if kind not in self._layers:
            raise UnknownNameError("kind of attention", kind, self._layers)
        return self._layers[kind]

    def _native_size(self) -> int:
        side = self.unet.config["sample_size"]
        if not isinstance(side, int):
            raise BackboneError(
                f"expected a square sample_size in the U-Net's config, found {side}: set image_size"
            )
        return side * self.latent_downscale

    def _default_layers(self) -> tuple[int, ...]:
        up = [layer for layer in self.layers("cross") if layer.name.startswith("up_blocks")]
        if not up:
            raise BackboneError(f"expected cross-attention in the up path of {self.name}, found none")
        sides = sorted({layer.downscale for layer in up}, reverse=True)
        chosen = [layer for layer in up if layer.downscale == sides[0]]
        chosen += [layer for layer in up if layer.downscale in sides[1:2]][:1]
        return tuple(layer.index for layer in chosen)


def _plain(config: Mapping[str, object]) -> dict[str, object]:
    """A diffusers config without its bookkeeping (versions, paths)."""
    return {key: value for key, value in config.items() if not key.startswith("_")}


@contextmanager
def _no_bars() -> Iterator[None]:
    """A bar for each weight file would stand between the lines of a result; downloads keep theirs."""
    shown = [
        library for library in (diffusers_logging, transformers_logging) if library.is_progress_bar_enabled()
    ]
    try:
        for library in shown:
            library.disable_progress_bar()
        yield
    finally:
        for library in shown:
            library.enable_progress_bar()


def _dtype(dtype: str | torch.dtype) -> torch.dtype:
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype):
        raise UnknownNameError("dtype", dtype, ["float32", "bfloat16", "float16", "float64"])
    return found


def _check_folder(path: Path) -> None:
    for part in ("unet", "vae"):
        if not (path / part / "config.json").is_file():
            raise BackboneError(
                f"expected a diffusers model with unet/ and vae/ in {path}, found no {part}/config.json: "
                "give the folder that holds model_index.json"
            )


def _attention_modules(unet: UNet2DConditionModel) -> dict[str, Attention]:
    # named_modules lists down, up, mid; they run down, mid, up
    found = {name: m for name, m in unet.named_modules() if isinstance(m, Attention)}
    order = ("down_blocks", "mid_block", "up_blocks")
    return dict(sorted(found.items(), key=lambda pair: order.index(pair[0].split(".")[0])))


def _layers(unet: UNet2DConditionModel, modules: Mapping[str, Attention], kind: str) -> tuple[LayerInfo, ...]:
    depth = len(unet.config["down_block_types"]) - 1

    def downscale(name: str) -> int:
        part, block = name.split(".")[:2]
        if part == "mid_block":
            return 2**depth
        return 2 ** (int(block) if part == "down_blocks" else depth - int(block))

    names = [name for name in modules if name.endswith("attn2") == (kind == "cross")]
    return tuple(
        LayerInfo(name, index, "cross" if kind == "cross" else "self", modules[name].heads, downscale(name))
        for index, name in enumerate(names)
    )
