"""Read the attention of chosen layers during one denoising pass, and leave no trace."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from diffcorr.attention.base import AttentionRead, AttentionVariant
from diffcorr.attention.mean import MeanAttention
from diffcorr.backbones.base import Backbone, Kind, LayerInfo, LayerSpec, StopForward
from diffcorr.backbones.joint_processor import JointAttentionProcessor
from diffcorr.backbones.processor import AttentionProcessor, fused
from diffcorr.errors import LayerError

Trunk = Literal["prompt", "null"]
"""Which prompt a model follows on its way to the layers that are read, see ``read_prompts``."""


@dataclass(frozen=True)
class AttentionMap:
    """What a variant made of one layer's attention.

    Attributes:
        tensor: cross-attention (B, hw) of one token, (B, hw, T) of several or (B, hw, P) of all;
            self-attention (B, hw, hw), row = query pixel. fp32 or better.
        size: (h, w) of the map.
        layer: where it was read.
    """

    tensor: Tensor
    size: tuple[int, int]
    layer: LayerInfo

    @property
    def grid(self) -> Tensor:
        """The tensor with its query pixels unfolded: (B, h, w), (B, h, w, T or P) or (B, h, w, hw)."""
        return self.tensor.unflatten(1, self.size)


@contextmanager
def capture(
    backbone: Backbone,
    layers: LayerSpec = "all",
    kind: Kind = "cross",
    *,
    variant: AttentionVariant | None = None,
    token: int | Sequence[int] | None = None,
    stop_early: bool = True,
    prompts_NPD: Tensor | None = None,
    rows: Sequence[int] | None = None,
) -> Iterator[dict[str, AttentionMap]]:
    """Within the block, every ``backbone.denoise`` fills the dict with its maps.

    Args:
        backbone: whose attention is read; it is restored at the end, whatever happens.
        layers: which layers, as ``Backbone.resolve_layers`` understands them.
        kind: ``'cross'`` or ``'self'``.
        variant: how the heads of a layer become one map; None = their mean.
        token: the only prompt token, or tokens, whose columns are read and kept; None keeps all.
        stop_early: run nothing after the last layer that is read (``denoise`` returns None).
        prompts_NPD: what cross-attention is read for instead of the prompt that the pass itself follows;
            gradients reach it through the read alone, also where the pass runs without.
        rows: which latent of the pass each of these prompts sees; None = its own.

    Yields:
        A dict of maps of the latest pass, by the layer's full name, in the order of the layers.

    Raises:
        LayerError: the block ended and no attention was recorded, ``token`` is no prompt token, or
            ``prompts_NPD`` of a model whose attention does not take its keys from the prompt itself.
        UnknownNameError: a layer that does not exist.
    """
    chosen = backbone.resolve_layers(kind, layers)
    num_tokens = backbone.embedding_shape[0]
    wanted = None if token is None else (token,) if isinstance(token, int) else tuple(token)
    beside = None if prompts_NPD is None else _Beside(prompts_NPD, rows or range(len(prompts_NPD)))
    if wanted is not None and (kind != "cross" or not all(0 <= t < num_tokens for t in wanted)):
        raise LayerError(
            f"expected a token in 0..{num_tokens - 1} of cross-attention, found {token} of {kind}"
        )
    if beside is not None and not backbone.prompt_is_context:
        raise LayerError(
            f"expected a model whose attention reads the prompt itself (a U-Net), found {backbone.name}: "
            "use trunk=prompt"
        )
    variant = variant or MeanAttention()
    modules: Mapping[str, Any] = backbone.attention_modules()
    maps: dict[str, AttentionMap] = {}
    originals: dict[str, Any] = {layer.name: modules[layer.name].processor for layer in chosen}
    try:
        for layer in chosen:
            last = stop_early and layer is chosen[-1]
            column = token if token is None or isinstance(token, int) else wanted
            joint = isinstance(originals[layer.name], JointAttentionProcessor)
            build = _CapturingJointProcessor if joint else _CapturingProcessor
            processor = build(backbone, layer, variant, column, maps, beside, stop=last)
            modules[layer.name].set_processor(processor)
        yield maps
    finally:
        for name, processor in originals.items():
            modules[name].set_processor(processor)
    if not maps:
        raise LayerError(
            f"expected {kind}-attention of {', '.join(layer.name for layer in chosen)}, recorded nothing: "
            "call backbone.denoise inside of the capture block"
        )


def read_prompts(
    backbone: Backbone,
    noisy_Uchw: Tensor,
    timestep: int,
    prompts_NPD: Tensor,
    layers: LayerSpec,
    variant: AttentionVariant | None = None,
    token: int | Sequence[int] | None = None,
    *,
    rows: Sequence[int] | None = None,
    trunk: Trunk = "prompt",
    stop_early: bool = True,
) -> dict[str, AttentionMap]:
    """Cross-attention of N prompts in U noisy latents.

    Args:
        backbone: frozen.
        noisy_Uchw: latents.
        timestep: of the latents.
        prompts_NPD: what is read.
        layers, variant, token, stop_early: as in ``capture``.
        rows: which latent each prompt sees; None = its own.
        trunk: ``'prompt'``: the model follows each prompt on its way to the layers that are read, as
            in the papers; ``'null'``: it follows the empty prompt, one pass serves all prompts that see
            a latent, and gradients do not run through the model.
    """
    if trunk == "prompt":
        with capture(backbone, layers, variant=variant, token=token, stop_early=stop_early) as maps:
            backbone.denoise(noisy_Uchw, timestep, prompts_NPD, rows)
        return maps
    seen = list(range(len(noisy_Uchw)) if rows is None else rows)
    distinct = sorted(set(seen))
    places = [distinct.index(row) for row in seen]
    null = backbone.null_prompt()
    with (
        capture(
            backbone,
            layers,
            variant=variant,
            token=token,
            stop_early=stop_early,
            prompts_NPD=prompts_NPD,
            rows=places,
        ) as maps,
        torch.no_grad(),
    ):
        backbone.denoise(noisy_Uchw[distinct], timestep, null)
    return maps


@dataclass(frozen=True)
class _Beside:
    """Prompts (N, P, D) that are read without being followed, and the latents that they see."""

    prompts: Tensor
    rows: Sequence[int]


class _Recorder:
    """What is to be read of a layer, and where it goes."""

    def __init__(
        self,
        backbone: Backbone,
        layer: LayerInfo,
        variant: AttentionVariant,
        token: int | tuple[int, ...] | None,
        maps: dict[str, AttentionMap],
        beside: _Beside | None,
        *,
        stop: bool,
    ) -> None:
        self.backbone, self.layer, self.variant, self.token = backbone, layer, variant, token
        self.maps, self.beside, self.stop = maps, beside, stop

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) of the layer's map."""
        assert self.backbone.map_origin is not None
        height, width = (-(-side // self.layer.downscale) for side in self.backbone.map_origin)
        return height, width

    def record(self, found: Tensor) -> None:
        """Keep a map; no more is run where it was the last."""
        self.maps[self.layer.name] = AttentionMap(found, self.size, self.layer)
        if self.stop:
            raise StopForward


class _CapturingProcessor(_Recorder, AttentionProcessor):
    """Computes the probabilities itself, which the library never exposes, and hands them to a variant."""

    def attend(self, attn: Any, query_BCNd: Tensor, context: Tensor, mask: Tensor | None) -> Tensor:
        """As it would be without a reader, or nothing any more."""
        if mask is not None:
            raise LayerError(
                f"expected no attention mask in {self.layer.name}, found one: read another layer"
            )

        def read(query: Tensor, context: Tensor) -> AttentionRead:
            key = self.heads(attn, attn.to_k(context))
            return AttentionRead(query, key, attn.scale, self.layer.kind, self.token)

        own = read(query_BCNd, context)
        if self.beside is None:
            found = self.variant(own)
        else:
            rows = list(self.beside.rows)
            with torch.set_grad_enabled(self.beside.prompts.requires_grad):
                prompts = self.beside.prompts.to(context.dtype)
                found = self.variant(read(query_BCNd[rows], self.normed(attn, prompts)))
        if prod(self.size) != query_BCNd.shape[2]:
            raise LayerError(
                f"expected a map of {self.size[0]}x{self.size[1]} in {self.layer.name}, found "
                f"{query_BCNd.shape[2]} pixels: the model halves its latents in a way that this backbone "
                "does not describe"
            )
        self.record(found)
        value_BCMd = self.heads(attn, attn.to_v(context))
        if self.layer.kind == "cross" and self.beside is None:  # the probabilities are there already
            return own.probs.to(value_BCMd.dtype) @ value_BCMd
        return fused(own.query, own.key, value_BCMd, attn.scale)


class _CapturingJointProcessor(_Recorder, JointAttentionProcessor):
    """Reads one block of the attention that image and text share."""

    def mix(self, query_BCSd: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """As it would be without a reader, or nothing any more."""
        length = query_BCSd.shape[2] - prod(self.size)  # of the text
        image, scale, kind = query_BCSd[:, :, length:], query_BCSd.shape[-1] ** -0.5, self.layer.kind
        if kind == "cross":
            text, rest = key[:, :, :length], key[:, :, length:]
            self.record(self.variant(JointRead(image, text, scale, kind, self.token, rest)))
        else:  # the softmax over the image alone is its block of the joint one, rows normalised
            self.record(self.variant(AttentionRead(image, key[:, :, length:], scale, kind)))
        return super().mix(query_BCSd, key, value)


@dataclass(frozen=True)
class JointRead(AttentionRead):
    """The image-to-text block of joint attention: its probabilities come out of a softmax over all.

    Attributes:
        key: of the text's P tokens.
        rest: keys (B, C, N, d) of the image, which the tokens compete with.
    """

    rest: Tensor | None = None

    @cached_property
    def probs(self) -> Tensor:
        """Probabilities of all heads, (B, C, N, P); rows sum to what the image leaves of 1."""
        assert self.rest is not None

        def claimed_by(c: int) -> Tensor:
            assert self.rest is not None
            read = AttentionRead(self.query[:, c : c + 1], self.rest[:, c : c + 1], self.scale, "self")
            return read.scores.logsumexp(-1, keepdim=True)

        # head by head: together the scores of all pixels for all pixels take gigabytes
        claimed = torch.cat([claimed_by(c) for c in range(self.query.shape[1])], 1)
        return (self.scores - torch.logaddexp(self.scores.logsumexp(-1, keepdim=True), claimed)).exp()

    def head(self, c: int) -> JointRead:
        """The same of head ``c`` alone."""
        assert self.rest is not None
        one = slice(c, c + 1)
        query, key, rest = self.query[:, one], self.key[:, one], self.rest[:, one]
        return JointRead(query, key, self.scale, self.kind, self.token, rest)


def resize_maps(maps: Mapping[str, AttentionMap], size: int) -> Tensor:
    """The maps of several layers, bilinear to a common side.

    Returns:
        (B, L, size, size) of one token; (B, L, T, size, size) of several.
    """
    resized = []
    for m in maps.values():
        grid = m.grid.unsqueeze(1) if m.tensor.ndim == 2 else m.grid.movedim(-1, 1)
        bigger = F.interpolate(grid, size=(size, size), mode="bilinear", align_corners=False)
        resized.append(bigger[:, 0] if m.tensor.ndim == 2 else bigger)
    return torch.stack(resized, dim=1)
