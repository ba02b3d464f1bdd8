"""Features of self-supervised vision transformers: DINO, DINOv2, DINOv3, by transformers' own classes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PretrainedConfig, PreTrainedModel

from diffcorr.backbones.base import StopForward
from diffcorr.correspondence.features.base import FeatureSource
from diffcorr.correspondence.features.imagenet import imagenet_pixels
from diffcorr.errors import BackboneError, LayerError, UnknownNameError
from diffcorr.types import UInt8Image

FAMILIES = {
    "dino": "vit",
    "dinov2": "dinov2",
    "dinov2_registers": "dinov2_with_registers",
    "dinov3": "dinov3_vit",
}
"""transformers' model type of each family."""

FACETS = {
    "token": (),
    "query": ("q_proj", "query"),
    "key": ("k_proj", "key"),
    "value": ("v_proj", "value"),
}
"""How versions of transformers call the projection of each facet."""


class ViTFeatures(FeatureSource):
    """Patch tokens of one block, or the queries, keys or values of its attention (all heads).

    Class and register tokens are dropped. Tokens are the block's output before the model's last
    normalisation; queries and keys of DINOv3 are taken before its rotary positions.

    Args:
        path_or_name: folder of a transformers model, or a hub name ``owner/name``; safetensors only.
        family: a key of `FAMILIES`.
        patch_size: side of a patch in pixels, which has to be the model's.
        side: images are stretched to this square, in pixels, a multiple of ``patch_size``.
        layer: block, from 0; negative ones count from the last.
        facet: ``token``, ``query``, ``key`` or ``value``.
        weights: ``random`` builds the architecture, seeded, without a download.
        architecture: of random weights, fields of the model's transformers configuration.
        device: where to compute.
        cache_size: images whose features are kept.

    Raises:
        UnknownNameError: no such family, facet or kind of weights.
        LayerError: no such block.
        BackboneError: no such model, one of another family or patch size, or a side that patches do not fill.
    """

    def __init__(
        self,
        path_or_name: str,
        family: str,
        patch_size: int,
        side: int,
        layer: int = -1,
        facet: str = "token",
        weights: Literal["pretrained", "random"] = "pretrained",
        architecture: Mapping[str, Any] | None = None,
        device: str | torch.device = "cpu",
        cache_size: int = 32,
    ) -> None:
        super().__init__(side, cache_size=cache_size)
        for kind, name, known in (
            ("family of vision transformers", family, list(FAMILIES)),
            ("facet", facet, list(FACETS)),
            ("weights", weights, ["pretrained", "random"]),
        ):
            if name not in known:
                raise UnknownNameError(kind, name, known)
        if side < patch_size or side % patch_size:
            nearest = max(1, round(side / patch_size)) * patch_size
            raise BackboneError(
                f"expected a side that is a multiple of patch_size {patch_size}, found {side}: use {nearest}"
            )
        self.patch_size = patch_size
        if weights == "random":
            self.model = _random(FAMILIES[family], {"patch_size": patch_size, **(architecture or {})})
        else:
            self.model = _load(path_or_name, FAMILIES[family])
        self.model.requires_grad_(False).eval().to(device)
        if self.model.config.patch_size != patch_size:
            raise BackboneError(
                f"expected patches of {patch_size} pixels in {path_or_name}, found "
                f"{self.model.config.patch_size}: set patch_size and a side that it divides"
            )
        self._read = _module(self.model, layer, facet)

    def compute(self, image: UInt8Image, key: str, prompt: str) -> Tensor:
        """Features of one image; nothing after the module that is read is run."""
        pixels = imagenet_pixels(image, self.side).to(self.model.device, self.model.dtype)
        kept: list[Tensor] = []

        def keep(module: nn.Module, args: Any, output: Any) -> None:
            kept.append(output if isinstance(output, Tensor) else output[0])
            raise StopForward

        # DINO adds positions of the size that it was trained at unless told otherwise, the others never do
        options = {"interpolate_pos_encoding": True} if self.model.config.model_type == "vit" else {}
        handle = self._read.register_forward_hook(keep)
        try:
            self.model(pixels[None], **options)
        except StopForward:
            pass
        finally:
            handle.remove()
        cells = self.side // self.patch_size
        patches = kept[0][0, -(cells**2) :]  # class and register tokens come first
        return patches.float().T.reshape(-1, cells, cells)


def _module(model: PreTrainedModel, layer: int, facet: str) -> nn.Module:
    """The module whose output is read."""
    number = model.config.num_hidden_layers
    if not -number <= layer < number:
        raise LayerError(f"expected a block in {-number}..{number - 1}, found {layer}: change layer")
    # versions of transformers keep the blocks in different places, but they are one list everywhere
    (blocks,) = (m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == number)
    block = blocks[layer]
    if facet == "token":
        return block
    found = [m for name, m in block.named_modules() if name.rpartition(".")[2] in FACETS[facet]]
    return next(m for m in found if isinstance(m, nn.Linear))


def _random(model_type: str, architecture: Mapping[str, Any]) -> PreTrainedModel:
    try:
        config = AutoConfig.for_model(model_type, **architecture)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return AutoModel.from_config(config, dtype=torch.float32)
    except (ValueError, TypeError, KeyError, ArithmeticError, RuntimeError) as error:
        raise _no_model(model_type, "architecture", error) from error


def _load(path: str, model_type: str) -> PreTrainedModel:
    folder = Path(path)
    if not folder.is_dir() and (path.count("/") != 1 or path.startswith((".", "/", "~"))):
        raise BackboneError(
            f"expected the folder of a transformers model or a hub name owner/name, found {path!r}: "
            "docs/methods.md says where to get the weights"
        )
    if folder.is_dir():
        for pattern, remedy in (
            ("config.json", "give the folder that holds it"),
            ("*.safetensors", "convert the weights first (docs/methods.md)"),
        ):
            if not any(folder.glob(pattern)):
                raise BackboneError(f"expected {pattern} in {path}, found none: {remedy}")
    try:
        values, _ = PretrainedConfig.get_config_dict(path)
        if values.get("model_type") != model_type:
            raise BackboneError(
                f"expected a model of type {model_type!r} in {path}, found {values.get('model_type')!r}: "
                "set family to the model's"
            )
        model, told = AutoModel.from_pretrained(
            path,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch.float32,
            output_loading_info=True,
            # the published weights of DINO have no pooling layer
            **({"add_pooling_layer": False} if model_type == "vit" else {}),
        )
    except BackboneError:
        raise
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise _no_model(model_type, path, error) from error
    if missing := sorted(told["missing_keys"]):
        raise BackboneError(
            f"expected all weights of a {model_type} model in {path}, found none for {missing[0]} "
            f"and {len(missing) - 1} more: give a complete model"
        )
    return model


def _no_model(model_type: str, where: str, error: Exception) -> BackboneError:
    reason = " ".join(str(error).split())[:300]
    return BackboneError(
        f"expected a {model_type} model (transformers, safetensors) in {where}, found: {reason}: "
        "docs/methods.md says where to get the weights"
    )
