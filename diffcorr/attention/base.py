"""What a variant is given, and what it has to be."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from diffcorr.backbones.base import Kind, LayerInfo
from diffcorr.errors import LayerError


@dataclass(frozen=True)
class AttentionRead:
    """One layer's attention in one pass; everything is computed on demand, in fp32 or better.

    N = h w query pixels; M = what they attend to: P prompt tokens, or N pixels in self-attention.

    Attributes:
        query, key: projected queries (B, C, N, d) and keys (B, C, M, d) of all heads.
        scale: factor of the scores, 1 / sqrt(d) (Hedlin et al. 2023, equation 2).
        kind: ``'cross'`` or ``'self'``.
        token: the column that is wanted, several, or None for all.
        layer: where it is read, where that is known.
        around: self-attention of the same pixels, for a variant with ``needs_self``.
        rows: which row of ``around`` belongs to each row here; None = its own.
    """

    query: Tensor
    key: Tensor
    scale: float
    kind: Kind
    token: int | tuple[int, ...] | None = None
    layer: LayerInfo | None = None
    around: AttentionRead | None = None
    rows: tuple[int, ...] | None = None

    @cached_property
    def scores(self) -> Tensor:
        """Scaled scores before the softmax, of all heads, (B, C, N, M)."""
        precise = torch.promote_types(self.query.dtype, torch.float32)
        with torch.autocast(self.query.device.type, enabled=False):
            return (self.query.to(precise) * self.scale) @ self.key.to(precise).transpose(-1, -2)

    @cached_property
    def probs(self) -> Tensor:
        """Probabilities of all heads, (B, C, N, M); rows sum to 1."""
        return self.scores.softmax(-1)

    def head(self, c: int) -> AttentionRead:
        """The same of head ``c`` alone (C = 1): what it computes is not kept here."""
        return replace(self, query=self.query[:, c : c + 1], key=self.key[:, c : c + 1])

    def pick(self, values: Tensor) -> Tensor:
        """The wanted column of values (..., M) as (...), several as (..., T), or all of them."""
        if isinstance(self.token, tuple):
            return values[..., list(self.token)]
        return values if self.token is None else values[..., self.token]


class AttentionVariant(ABC):
    """How attention becomes one map: of a layer's heads first, of the layers then.

    Attributes:
        bounded: whether the values lie in [0, 1].
        needs_self: whether cross-attention is to come with ``AttentionRead.around``.
        timesteps: noise levels, 0..999, whose maps are averaged; none: the one that the reader asks for.
    """

    bounded: bool = True
    needs_self: bool = False
    timesteps: tuple[int, ...] = ()

    @abstractmethod
    def __call__(self, read: AttentionRead) -> Tensor:
        """(B, N) where one token is wanted, (B, N, T) of several, else (B, N, M)."""

    def join(self, maps_BLhw: Tensor, layers: Sequence[LayerInfo]) -> Tensor:
        """One map (B, ..., h, w) of the L layers' maps (B, L, ..., h, w); their mean unless overridden."""
        return maps_BLhw.mean(1)


def mean_over_heads(read: AttentionRead, heads: Sequence[int]) -> Tensor:
    """Mean probability over ``heads``, (B, N) or (B, N, M).

    In self-attention the heads are added up one after the other in one buffer, so that the
    probabilities of all heads never exist together (512 MiB at 64 x 64 pixels and 8 heads).

    Raises:
        LayerError: no heads, or one that the layer does not have.
    """
    num_heads = read.query.shape[1]
    if not heads or not all(0 <= c < num_heads for c in heads):
        raise LayerError(f"expected heads in 0..{num_heads - 1}, found {list(heads)}")
    if read.kind == "cross":
        probs = read.probs if len(heads) == num_heads else read.probs[:, list(heads)]
        return read.pick(probs).mean(1)
    first, *others = heads
    total = read.pick(read.head(first).probs)[:, 0].clone()  # autograd keeps the original
    for c in others:
        total += read.pick(read.head(c).probs)[:, 0]
    return total.div_(len(heads))
