"""Stable Diffusion XL and what was distilled from it: two text encoders, a pooled one, a size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from diffcorr.backbones.latent import tokenized
from diffcorr.backbones.unet import UNetBackbone


class SDXLBackbone(UNetBackbone):
    """A U-Net that also sees a pooled text embedding and a size (Podell et al. 2023, section 2.2).

    The size is that of the input, uncropped. The pooled embedding is that of the empty prompt, whatever
    tokens are optimised.

    Args:
        unet, vae, scheduler, name, paper_layers, image_size: as for ``UNetBackbone``; without
            ``paper_layers``, the last layer of each attention block of the lowest resolution of the up
            path, and the first of the next.
        text_encoder, tokenizer, text_encoder_2, tokenizer_2: may be absent; then ``denoise`` and
            ``encode_prompt`` raise.
    """

    text_parts: ClassVar[Mapping[str, Any]] = {
        "text_encoder": CLIPTextModel,
        "tokenizer": CLIPTokenizer,
        "text_encoder_2": CLIPTextModelWithProjection,
        "tokenizer_2": CLIPTokenizer,
    }
    prompt_note = (
        "all token embeddings (both encoders' side by side) are optimised; pooled fixed to the empty prompt's"
    )
    text_encoder_2: Any
    tokenizer_2: Any

    @classmethod
    def fits(cls, config: Mapping[str, Any]) -> bool:
        """Whether a denoiser is a U-Net with text and size conditions."""
        same = super(UNetBackbone, cls).fits(config)
        return same and config.get("addition_embed_type") == "text_time"

    @property
    def pooled_width(self) -> int:
        """What the six numbers of the size leave of the added conditions."""
        config = self.unet.config
        return int(config["projection_class_embeddings_input_dim"] - 6 * config["addition_time_embed_dim"])

    def _added(self, latents: Tensor) -> dict[str, Tensor]:
        height, width = (side * self.latent_downscale for side in latents.shape[-2:])
        size = torch.tensor([[height, width, 0, 0, height, width]], device=latents.device, dtype=self.dtype)
        count = len(latents)
        return {"text_embeds": self.pooled().expand(count, -1), "time_ids": size.expand(count, -1)}

    def _states(self, texts: Sequence[str]) -> tuple[Tensor, Tensor, list[list[str]]]:
        """Tokens' embeddings (B, P, D), pooled embeddings (B, D'), and the first encoder's tokens."""
        self._need_texts()
        states, strings = [], []
        for encoder, tokenizer in (
            (self.text_encoder, self.tokenizer),
            (self.text_encoder_2, self.tokenizer_2),
        ):
            ids, _, tokens = tokenized(tokenizer, texts, self.embedding_shape[0])
            found = encoder(ids.to(encoder.device), output_hidden_states=True)
            states.append(found.hidden_states[-2])
            strings.append(tokens)
        return torch.cat(states, -1), found[0], strings[0]

    def _encode_prompt(self, texts: Sequence[str]) -> tuple[Tensor, list[list[str]]]:
        """Last but one hidden states of both encoders (B, P, D), and the first one's tokens."""
        embeds, _, strings = self._states(texts)
        return embeds, strings

    def _pool(self, texts: Sequence[str]) -> Tensor:
        return self._states(texts)[1]

    def _vae_overflows(self) -> bool:
        return bool(self.vae.config["force_upcast"])  # the fp16-fix autoencoder says that it need not

    def _default_layers(self) -> tuple[int, ...]:
        chosen = [self.layers("cross")[index] for index in super()._default_layers()]
        lowest, after = chosen[:-1], chosen[-1:]
        if not lowest or lowest[0].downscale == after[0].downscale:  # all of one resolution
            lowest, after = chosen, []
        last = {layer.name.split(".transformer_blocks.")[0]: layer for layer in lowest}
        return tuple(layer.index for layer in [*last.values(), *after])
