"""What stands in for a layer's attention while it is read, and the maps that it leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any

import torch
from torch import Tensor

from diffcorr.attention.base import AttentionRead, AttentionVariant
from diffcorr.backbones.base import Backbone, LayerInfo, StopForward
from diffcorr.backbones.joint_processor import JointAttentionProcessor
from diffcorr.backbones.processor import AttentionProcessor, fused
from diffcorr.errors import LayerError


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


@dataclass(frozen=True)
class Beside:
    """Prompts (N, P, D) that are read without being followed, and the latents that they see."""

    prompts: Tensor
    rows: Sequence[int]


class _Recorder:
    """What is to be read of a layer, and where it goes.

    Attributes:
        around: self-attention of the same pixels, kept by an ``AttentionKeeper`` that ran before.
    """

    around: AttentionRead | None = None

    def __init__(
        self,
        backbone: Backbone,
        layer: LayerInfo,
        variant: AttentionVariant,
        token: int | tuple[int, ...] | None,
        maps: dict[str, AttentionMap],
        beside: Beside | None,
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


class AttentionRecorder(_Recorder, AttentionProcessor):
    """Computes the probabilities itself, which the library never exposes, and hands them to a variant."""

    def attend(self, attn: Any, query_BCNd: Tensor, context: Tensor, mask: Tensor | None) -> Tensor:
        """As it would be without a reader, or nothing any more."""
        if mask is not None:
            raise LayerError(
                f"expected no attention mask in {self.layer.name}, found one: read another layer"
            )

        kind, layer = self.layer.kind, self.layer

        def read(query: Tensor, context: Tensor, rows: tuple[int, ...] | None = None) -> AttentionRead:
            key = self.heads(attn, attn.to_k(context))
            return AttentionRead(query, key, attn.scale, kind, self.token, layer, self.around, rows)

        own = read(query_BCNd, context)
        if kind == "self":
            own = replace(own, around=own)
        if self.beside is None:
            found = self.variant(own)
        else:
            rows = tuple(self.beside.rows)
            with torch.set_grad_enabled(self.beside.prompts.requires_grad):
                prompts = self.beside.prompts.to(context.dtype)
                found = self.variant(read(query_BCNd[list(rows)], self.normed(attn, prompts), rows))
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


class JointRecorder(_Recorder, JointAttentionProcessor):
    """Reads one block of the attention that image and text share."""

    def mix(self, query_BCSd: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """As it would be without a reader, or nothing any more."""
        length = query_BCSd.shape[2] - prod(self.size)  # of the text
        image, scale = query_BCSd[:, :, length:], query_BCSd.shape[-1] ** -0.5
        text, rest = key[:, :, :length], key[:, :, length:]
        # the softmax over the image alone is its block of the joint one, rows normalised
        around = AttentionRead(image, rest, scale, "self", layer=self.layer)
        if self.layer.kind == "cross":
            asking = query_BCSd[:, :, :length]
            read = JointRead(image, text, scale, "cross", self.token, self.layer, around, None, rest, asking)
            self.record(self.variant(read))
        else:
            self.record(self.variant(replace(around, around=around)))
        return super().mix(query_BCSd, key, value)


class AttentionKeeper(AttentionProcessor):
    """Hands a layer's self-attention to the recorder of the cross-attention that follows it."""

    def __init__(self, layer: LayerInfo, reader: AttentionRecorder) -> None:
        self.layer, self.reader = layer, reader

    def attend(self, attn: Any, query_BCNd: Tensor, context: Tensor, mask: Tensor | None) -> Tensor:
        """As it would be without a reader."""
        key = self.heads(attn, attn.to_k(context))
        self.reader.around = AttentionRead(query_BCNd, key, attn.scale, "self", layer=self.layer)
        return super().attend(attn, query_BCNd, context, mask)


@dataclass(frozen=True)
class JointRead(AttentionRead):
    """The image-to-text block of joint attention: its probabilities come out of a softmax over all.

    Attributes:
        key: of the text's P tokens.
        rest: keys (B, C, N, d) of the image, which the tokens compete with.
        asking: queries (B, C, P, d) of the text.
    """

    rest: Tensor | None = None
    asking: Tensor | None = None

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
        assert self.asking is not None
        one = slice(c, c + 1)
        query, key, rest, asking = (part[:, one] for part in (self.query, self.key, self.rest, self.asking))
        return replace(self, query=query, key=key, rest=rest, asking=asking)
