"""PixArt: a transformer whose patches look at the tokens of T5 by cross-attention."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.pixart_transformer_2d import PixArtTransformer2DModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor
from transformers import AutoTokenizer, T5EncoderModel

from diffcorr.backbones.base import Kind
from diffcorr.backbones.processor import AttentionProcessor
from diffcorr.backbones.transformer import TransformerBackbone, t5_states, token_room


class PixArtBackbone(TransformerBackbone):
    """PixArt-alpha (Chen et al. 2023) and PixArt-sigma (Chen et al. 2024).

    Args:
        transformer: the denoiser.
        vae: the autoencoder.
        scheduler: only its ``alphas_cumprod`` are used.
        text_encoder, tokenizer: T5; may be absent, then ``encode_prompt`` raises.
        name, paper_layers, image_size: as for ``UNetBackbone``.
    """

    model_class = PixArtTransformer2DModel
    text_parts: ClassVar[Mapping[str, Any]] = {"text_encoder": T5EncoderModel, "tokenizer": AutoTokenizer}
    num_tokens = 120  # of alpha; sigma was trained with 300, and takes fewer
    prompt_note = "all token embeddings of T5 are optimised, without a mask"
    text_encoder: Any
    tokenizer: Any

    def __init__(
        self,
        transformer: PixArtTransformer2DModel,
        vae: AutoencoderKL,
        scheduler: DDIMScheduler,
        text_encoder: T5EncoderModel | None = None,
        tokenizer: Any = None,
        *,
        name: str = "pixart",
        paper_layers: Sequence[int] | None = None,
        image_size: int | None = None,
    ) -> None:
        config = transformer.config
        super().__init__(
            transformer,
            vae,
            scheduler,
            {"text_encoder": text_encoder, "tokenizer": tokenizer},
            config["caption_channels"] or config["cross_attention_dim"],
            name=name,
            paper_layers=paper_layers,
            image_size=image_size,
        )

    def _predict(self, latents: Tensor, timestep: int, embeds_BPD: Tensor) -> Tensor:
        self._check_sides(latents)
        height, width = (side * self.latent_downscale for side in latents.shape[-2:])
        count = len(latents)
        like: dict[str, Any] = {"device": latents.device, "dtype": self.dtype}
        sizes: dict[str, Any] = {"resolution": None, "aspect_ratio": None}
        if self.transformer.use_additional_conditions:
            sizes["resolution"] = torch.tensor([[height, width]], **like).expand(count, -1)
            sizes["aspect_ratio"] = torch.tensor([[height / width]], **like).expand(count, -1)
        times = torch.full((count,), timestep, device=latents.device)
        output: Tensor = self.transformer(latents, embeds_BPD, times, added_cond_kwargs=sizes).sample
        return output

    def _encode_prompt(self, texts: Sequence[str]) -> tuple[Tensor, list[list[str]]]:
        """Last hidden states (B, P, D) of T5, padding with that of the end, and the tokens."""
        self._need_texts()
        return t5_states(self.text_encoder, self.tokenizer, texts, self.embedding_shape[0], masked=True)

    def _count_tokens(self) -> int:
        return token_room(self.tokenizer, self.num_tokens)

    def _processor(self) -> Any:
        return AttentionProcessor()

    def _reads(self, name: str, kind: Kind) -> bool | None:
        return False if name.endswith("attn2") == (kind == "cross") else None
