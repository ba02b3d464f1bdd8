"""From the name of a model to an object: which family it is of, its parts, or random ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import torch
from diffusers.models.attention import FeedForward
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn

from diffcorr.backbones.base import Backbone
from diffcorr.backbones.loading import Source, as_dtype
from diffcorr.backbones.offload import Offload, set_apart, stream
from diffcorr.errors import BackboneError, UnknownNameError


class PretrainedBackbone(Backbone):
    """A backbone made of a denoiser, an autoencoder, a scheduler and text encoders with tokenizers.

    Attributes:
        folder: of the denoiser in a diffusers folder, and its name here.
        model_class: of the denoiser; None where a class is no family but what some share.
        text_parts: classes of text encoders and tokenizers by folder.
        flow: whether the model was trained by flow matching; its own schedule is then not read.
    """

    folder: ClassVar[str]
    model_class: ClassVar[Any] = None
    text_parts: ClassVar[Mapping[str, Any]]
    flow: ClassVar[bool] = False
    vae: AutoencoderKL
    _random: dict[str, Tensor]

    @property
    def denoiser(self) -> Any:
        """The U-Net or transformer."""
        return getattr(self, self.folder)

    @property
    def pooled_width(self) -> int:
        """Width of the pooled embedding that the denoiser sees beside the tokens; 0 = it sees none."""
        return 0

    @classmethod
    def fits(cls, config: Mapping[str, Any]) -> bool:
        """Whether a denoiser of that configuration is of this family."""
        return cls.model_class is not None and config.get("_class_name") == cls.model_class.__name__

    @classmethod
    def family_of(cls, config: Mapping[str, Any], given: str = "the model") -> type[Self]:
        """The class for a denoiser of that configuration: this one or one that derives from it.

        Raises:
            BackboneError: there is none; says which denoisers there are.
        """
        families = [family for family in _with_subclasses(cls) if family.model_class is not None]
        found = [family for family in families if family.fits(config)]
        if not found:
            known = ", ".join(dict.fromkeys(family.model_class.__name__ for family in families))
            extra = config.get("addition_embed_type")
            raise BackboneError(
                f"expected a model with {known}, found {config.get('_class_name')}"
                f"{f' with addition_embed_type {extra}' if extra else ''} in {given}: use one of those"
            )
        return found[0]

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
        offload: Offload = "none",
        config: str | Path | None = None,
    ) -> Self:
        """Load a model of this family or one that derives from it; what it is says its configuration.

        Only safetensors are read and no code of the folder is run.

        Args:
            path_or_name: a diffusers folder, a hub name, a name of the catalog (``tiny``, ``sd15``, ...),
                or a single safetensors file.
            name: how it is called; None = as the folder.
            paper_layers: cross-attention layers that prompt fitting reads; None = the family's.
            dtype: of the weights.
            device: where they are; ``meta`` with random weights takes no memory and computes nothing.
            weights: ``'random'`` builds the true architecture, seeded, without a download.
            image_size: side of the input in pixels; None = what the denoiser was configured for.
            channels_last, compile_blocks: change nothing but speed (the second is ``torch.compile``
                of what lies between attention layers).
            offload: what stays in main memory where a card is small: ``'texts'``: the text encoders, which
                run there, once for each text; ``'layers'``: the denoiser as well, whose layers come to the
                device one by one in every pass (slow; with ``trunk: null`` nothing else of it stays).
            config: for a single file, the diffusers folder that describes its U-Net and autoencoder, and has
                the text encoders.

        Raises:
            UnknownNameError: neither a folder or file, nor a known name, nor of the form owner/name.
            BackboneError: a folder, file or repository that holds no such model.
        """
        source = Source.find(path_or_name, config)
        if weights not in ("pretrained", "random"):
            raise UnknownNameError("weights", weights, ["pretrained", "random"])
        if offload not in ("none", "texts", "layers"):
            raise UnknownNameError("offload", offload, ["none", "texts", "layers"])
        precision = as_dtype(dtype)
        family = cls.family_of(source.denoiser_config(), source.given)
        options: dict[str, Any] = {"name": name or Path(source.given).name, "image_size": image_size}
        if weights == "random":
            backbone = family._build(source, torch.device(device), options)
        else:
            backbone = family._assemble(
                source.parts(family.folder, family.model_class, family.text_parts, family.flow), options
            )
        if paper_layers is not None:
            backbone.resolve_layers("cross", paper_layers)
            backbone.paper_layers = tuple(paper_layers)
        backbone.to(dtype=precision)
        if precision == torch.float64:  # transformers 4 has no mask in fp64
            for part in family.text_parts:
                if isinstance(getattr(backbone, part), nn.Module):
                    getattr(backbone, part).float()
        if offload != "none":
            for part in [*family.text_parts, *([family.folder] if offload == "layers" else [])]:
                set_apart(backbone, part)
        backbone.to(device)
        if precision == torch.float16 and backbone._vae_overflows():
            backbone.vae.float()
        if channels_last:
            backbone.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if compile_blocks:
            backbone._compile_blocks()
        if offload == "layers":
            stream(backbone.denoiser, torch.device(device))
        return backbone

    @classmethod
    def _assemble(cls, parts: dict[str, Any], options: dict[str, Any]) -> Self:
        build: Any = cls  # families name their denoiser in their signature
        return build(parts.pop(cls.folder), **parts, **options)

    @classmethod
    def _build(cls, source: Source, device: torch.device, options: dict[str, Any]) -> Self:
        """Random weights; on the meta device none."""
        where = device if device.type == "meta" else torch.device("cpu")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            with where:
                denoiser = cls.model_class.from_config(source.denoiser_config())
                vae = AutoencoderKL.from_config(source.vae_config())
            backbone = cls._assemble(
                {cls.folder: denoiser, "vae": vae, "scheduler": source.schedule()}, options
            )
            # there is no text encoder to ask, and what reads the empty prompt shall run all the same
            backbone._random["prompt"] = torch.randn(1, *backbone.embedding_shape)
            backbone._random["pooled"] = torch.randn(1, backbone.pooled_width)
        return backbone

    def _compile_blocks(self) -> None:
        """Compile in place; attention stays as it is, for its processors come and go."""
        from torch._dynamo import config  # slow to import

        # one class runs with many widths, with gradients and without: beyond the limit it is not compiled
        config.cache_size_limit = max(config.cache_size_limit, 256)
        for module in self.denoiser.modules():
            if isinstance(module, ResnetBlock2D | FeedForward):
                module.compile(dynamic=True)

    def _vae_overflows(self) -> bool:
        """Whether the autoencoder has to stay in fp32 where the rest is fp16."""
        return False


def _with_subclasses(cls: type[Any]) -> list[Any]:
    return [cls, *(deeper for child in cls.__subclasses__() for deeper in _with_subclasses(child))]
