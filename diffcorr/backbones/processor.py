"""The library's attention, written out: open where a reader looks in, and quick backward on a CPU."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


class AttentionProcessor:
    """A processor for diffusers' ``Attention``; the arithmetic is that of the library's own."""

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """Output of the layer, in the shape of ``hidden_states``."""
        residual = hidden_states
        if attn.spatial_norm is not None:
            hidden_states = attn.spatial_norm(hidden_states, temb)
        spatial = hidden_states.shape[2:] if hidden_states.ndim == 4 else None
        if spatial is not None:
            hidden_states = hidden_states.flatten(2).transpose(1, 2)
        if attn.group_norm is not None:
            hidden_states = attn.group_norm(hidden_states.transpose(1, 2)).transpose(1, 2)
        context = encoder_hidden_states
        if context is not None:
            context = self.normed(attn, context)
        query_BCNd = self.heads(attn, attn.to_q(hidden_states))
        out = self.attend(attn, query_BCNd, hidden_states if context is None else context, attention_mask)
        out = attn.to_out[1](attn.to_out[0](out.transpose(1, 2).flatten(2)))
        if spatial is not None:
            out = out.transpose(1, 2).unflatten(2, spatial)
        if attn.residual_connection:
            out = out + residual
        return out / attn.rescale_output_factor

    def attend(self, attn: Any, query_BCNd: Tensor, context: Tensor, mask: Tensor | None) -> Tensor:
        """What each of N pixels takes over from the context (B, M, D): (B, C, N, d)."""
        if mask is not None:
            mask = attn.prepare_attention_mask(mask, context.shape[1], len(context))
            mask = mask.unflatten(0, (len(context), attn.heads))
        key, value = self.heads(attn, attn.to_k(context)), self.heads(attn, attn.to_v(context))
        return fused(query_BCNd, key, value, attn.scale, mask)

    @staticmethod
    def heads(attn: Any, projected: Tensor) -> Tensor:
        """(B, N, C d) as (B, C, N, d)."""
        return projected.unflatten(-1, (attn.heads, -1)).transpose(1, 2)

    @staticmethod
    def normed(attn: Any, context: Tensor) -> Tensor:
        """The context of cross-attention as keys and values see it."""
        normed: Tensor = attn.norm_encoder_hidden_states(context) if attn.norm_cross else context
        return normed


def fused(query: Tensor, key: Tensor, value: Tensor, scale: float, mask: Tensor | None = None) -> Tensor:
    """Attention that never holds the probabilities of all heads at once.

    Backward on a CPU, half precision is up to five times slower than single.
    """
    dtype = query.dtype
    follows = torch.is_grad_enabled() and any(t.requires_grad for t in (query, key, value))
    if follows and query.device.type == "cpu" and dtype in (torch.bfloat16, torch.float16):
        query, key, value = query.float(), key.float(), value.float()
    return F.scaled_dot_product_attention(query, key, value, mask, scale=scale).to(dtype)
