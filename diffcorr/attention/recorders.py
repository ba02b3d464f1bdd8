"""What stands in for a layer's attention while it is read, and the maps that it leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
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
    """What is to be read of a layer, and where it goes."""

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


class JointRecorder(_Recorder, JointAttentionProcessor):
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
