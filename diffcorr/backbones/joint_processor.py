"""Joint attention, written out: image and text look at each other and themselves in one softmax."""

from __future__ import annotations

from typing import Any

import torch
from diffusers.models.embeddings import apply_rotary_emb
from torch import Tensor

from diffcorr.backbones.processor import AttentionProcessor, fused
from diffcorr.errors import LayerError


class JointAttentionProcessor:
    """A processor for the attention of SD3 and FLUX; the arithmetic is that of the library's own.

    Text comes first in the joint sequence and the image is its end, also in SD3, where the library has it
    the other way round: attention without positions does not care.
    """

    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        image_rotary_emb: Any = None,
        **kwargs: Any,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Outputs in the shapes of the inputs: of the image, or of image and text where both were given."""
        if attention_mask is not None:
            raise LayerError("expected joint attention without a mask, found one: leave it out")
        parts = [[attn.to_q, attn.to_k, attn.to_v, attn.norm_q, attn.norm_k, hidden_states]]
        if encoder_hidden_states is not None:
            norms = attn.norm_added_q, attn.norm_added_k
            parts.insert(
                0, [attn.add_q_proj, attn.add_k_proj, attn.add_v_proj, *norms, encoder_hidden_states]
            )
        # of each part (B, C, its tokens, d), one after the other
        query, key, value = (torch.cat(t, 2) for t in zip(*(_project(attn, *p) for p in parts), strict=True))
        if image_rotary_emb is not None:
            query, key = (_turned(states, image_rotary_emb) for states in (query, key))
        out = self.mix(query, key, value).transpose(1, 2).flatten(2)
        if encoder_hidden_states is None:
            return out if attn.pre_only else _projected(attn, out)
        length = encoder_hidden_states.shape[1]
        text, image = out[:, :length], _projected(attn, out[:, length:])
        return image, text if attn.context_pre_only else attn.to_add_out(text)

    def mix(self, query_BCSd: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """What each of S tokens, the text's before the image's, takes over from all: (B, C, S, d)."""
        return fused(query_BCSd, key, value, query_BCSd.shape[-1] ** -0.5)


def _project(
    attn: Any, to_q: Any, to_k: Any, to_v: Any, norm_q: Any, norm_k: Any, states: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    query, key, value = (AttentionProcessor.heads(attn, to(states)) for to in (to_q, to_k, to_v))
    return (
        query if norm_q is None else norm_q(query),
        key if norm_k is None else norm_k(key),
        value,
    )


def _turned(states: Tensor, rotary: Any) -> Tensor:
    turned: Any = apply_rotary_emb(states, rotary)  # in fp32 at best
    return turned


def _projected(attn: Any, out: Tensor) -> Tensor:
    projected: Tensor = attn.to_out[1](attn.to_out[0](out))
    return projected
