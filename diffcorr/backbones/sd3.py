"""Stable Diffusion 3 and 3.5."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from torch import Tensor
from transformers import AutoTokenizer, CLIPTextModelWithProjection, CLIPTokenizer, T5EncoderModel

from diffcorr.backbones.latent import tokenized
from diffcorr.backbones.mmdit import JointBackbone
from diffcorr.backbones.transformer import t5_states, token_room
from diffcorr.errors import BackboneError

CLIP_TOKENS, T5_TOKENS = 77, 256


class SD3Backbone(JointBackbone):
    """Stable Diffusion 3 medium, 3.5 medium and 3.5 large (Esser et al. 2024).

    A prompt is CLIP's tokens, both encoders side by side and padded with zeros to T5's width, followed
    by T5's tokens.

    Args:
        transformer: the denoiser.
        vae: the autoencoder.
        scheduler: of the diffusion that timesteps refer to.
        text_encoder, tokenizer, text_encoder_2, tokenizer_2: of CLIP; may be absent, then ``denoise`` and
            ``encode_prompt`` raise.
        text_encoder_3, tokenizer_3: T5; where they are absent, its tokens are zeros, as in the library.
        name, paper_layers, image_size: as for ``UNetBackbone``.
    """

    model_class = SD3Transformer2DModel
    text_parts: ClassVar[Mapping[str, Any]] = {
        "text_encoder": CLIPTextModelWithProjection,
        "tokenizer": CLIPTokenizer,
        "text_encoder_2": CLIPTextModelWithProjection,
        "tokenizer_2": CLIPTokenizer,
        "text_encoder_3": T5EncoderModel,
        "tokenizer_3": AutoTokenizer,
    }
    optional_texts = ("text_encoder_3", "tokenizer_3")
    num_tokens = CLIP_TOKENS + T5_TOKENS
    prompt_note = "all token embeddings (CLIP's, then T5's) are optimised; pooled fixed to the empty prompt's"
    text_encoder: Any
    text_encoder_2: Any
    text_encoder_3: Any
    tokenizer: Any
    tokenizer_2: Any
    tokenizer_3: Any

    def _predict(self, latents: Tensor, timestep: int, embeds_BPD: Tensor) -> Tensor:
        self._check_sides(latents)
        largest = self.transformer.config["pos_embed_max_size"] * self.patch
        if max(latents.shape[-2:]) > largest:
            raise BackboneError(
                f"expected sides of at most {largest * self.latent_downscale} pixels for {self.name}, found "
                f"{max(latents.shape[-2:]) * self.latent_downscale}: resize the image"
            )
        count = len(latents)
        times = torch.full((count,), 1000 * self.sigma(timestep), device=latents.device, dtype=self.dtype)
        output: Tensor = self.transformer(latents, embeds_BPD, self.pooled().expand(count, -1), times).sample
        return output

    def _clip(self, texts: Sequence[str]) -> tuple[Tensor, Tensor, list[list[str]]]:
        """Tokens' embeddings (B, 77, D'), pooled embeddings (B, D''), and the first encoder's tokens."""
        self._need_texts()
        states, pooled, strings = [], [], []
        length = token_room(self.tokenizer, CLIP_TOKENS)
        for encoder, tokenizer in (
            (self.text_encoder, self.tokenizer),
            (self.text_encoder_2, self.tokenizer_2),
        ):
            ids, _, tokens = tokenized(tokenizer, texts, length)
            found = encoder(ids.to(encoder.device), output_hidden_states=True)
            states.append(found.hidden_states[-2])
            pooled.append(found[0])
            strings.append(tokens)
        return torch.cat(states, -1), torch.cat(pooled, -1), strings[0]

    def _encode_prompt(self, texts: Sequence[str]) -> tuple[Tensor, list[list[str]]]:
        """Tokens of CLIP, both encoders side by side, then those of T5 (B, P, D), and all as strings."""
        clip, _, strings = self._clip(texts)
        num_tokens, width = self.embedding_shape
        clip = F.pad(clip, (0, width - clip.shape[-1]))
        length = num_tokens - clip.shape[1]
        if self.text_encoder_3 is None or self.tokenizer_3 is None:
            t5, more = clip.new_zeros(len(clip), length, width), [[""] * length for _ in texts]
        else:
            t5, more = t5_states(self.text_encoder_3, self.tokenizer_3, texts, length)
        return torch.cat([clip, t5.to(clip)], 1), [a + b for a, b in zip(strings, more, strict=True)]

    def _pool(self, texts: Sequence[str]) -> Tensor:
        return self._clip(texts)[1]

    def _count_tokens(self) -> int:
        return token_room(self.tokenizer, CLIP_TOKENS) + token_room(self.tokenizer_3, T5_TOKENS)
