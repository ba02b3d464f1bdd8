"""FLUX.1: double blocks, in which text and image have weights of their own, then single blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from torch import Tensor, nn
from transformers import AutoTokenizer, CLIPTextModel, CLIPTokenizer, T5EncoderModel

from diffcorr.backbones.latent import tokenized
from diffcorr.backbones.mmdit import JointBackbone
from diffcorr.backbones.transformer import t5_states, token_room

GUIDANCE = 3.5
"""What models with distilled guidance are told: the library's default."""

PATCH = 2
NATIVE_SIZE = 1024  # the transformer's configuration has none: positions are rotary


class FluxBackbone(JointBackbone):
    """FLUX.1 dev and schnell (Black Forest Labs 2024).

    Args:
        transformer: the denoiser.
        vae: the autoencoder.
        scheduler: of the diffusion that timesteps refer to.
        text_encoder, tokenizer: CLIP, for the pooled embedding; may be absent, then ``denoise`` raises.
        text_encoder_2, tokenizer_2: T5, for the tokens; may be absent, then ``encode_prompt`` raises.
        name, paper_layers, image_size: as for ``UNetBackbone``.
    """

    model_class = FluxTransformer2DModel
    text_parts: ClassVar[Mapping[str, Any]] = {
        "text_encoder": CLIPTextModel,
        "tokenizer": CLIPTokenizer,
        "text_encoder_2": T5EncoderModel,
        "tokenizer_2": AutoTokenizer,
    }
    num_tokens = 512  # of dev; schnell was trained with 256
    prompt_note = (
        f"all token embeddings of T5 are optimised; CLIP's pooled one fixed to the empty prompt's, "
        f"guidance to {GUIDANCE}"
    )
    text_encoder: Any
    text_encoder_2: Any
    tokenizer: Any
    tokenizer_2: Any

    @property
    def patch(self) -> int:
        """Side of a patch in latents: the model itself is given packed ones, and says 1."""
        return PATCH

    def _predict(self, latents: Tensor, timestep: int, embeds_BPD: Tensor) -> Tensor:
        self._check_sides(latents)
        count = len(latents)
        height, width = (side // PATCH for side in latents.shape[-2:])
        like: dict[str, Any] = {"device": latents.device, "dtype": self.dtype}
        exact: dict[str, Any] = {"device": latents.device, "dtype": torch.float32}
        # a patch's channels one after the other, each with its 2 x 2 latents
        cut = latents.unflatten(3, (width, PATCH)).unflatten(2, (height, PATCH))
        packed_BND = cut.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
        rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
        places_N3 = torch.stack([torch.zeros_like(rows), rows, columns], -1).flatten(0, 1)
        guided = self.transformer.config["guidance_embeds"]
        output = self.transformer(
            hidden_states=packed_BND,
            encoder_hidden_states=embeds_BPD,
            pooled_projections=self.pooled().expand(count, -1),
            timestep=torch.full((count,), self.sigma(timestep), **like),  # the model multiplies by 1000
            img_ids=places_N3.to(**exact),
            txt_ids=torch.zeros(embeds_BPD.shape[1], 3, **exact),
            guidance=torch.full((count,), GUIDANCE, **like) if guided else None,
        ).sample
        cut = output.unflatten(2, (-1, PATCH, PATCH)).unflatten(1, (height, width))
        unpacked: Tensor = cut.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)
        return unpacked

    def _encode_prompt(self, texts: Sequence[str]) -> tuple[Tensor, list[list[str]]]:
        """Last hidden states (B, P, D) of T5, and the tokens as strings."""
        self._need_texts()
        return t5_states(self.text_encoder_2, self.tokenizer_2, texts, self.embedding_shape[0])

    def _pool(self, texts: Sequence[str]) -> Tensor:
        self._need_texts()
        ids, _, _ = tokenized(self.tokenizer, texts, self.tokenizer.model_max_length)
        pooled: Tensor = self.text_encoder(ids.to(self.text_encoder.device)).pooler_output
        return pooled

    def _count_tokens(self) -> int:
        most = self.num_tokens if self.transformer.config["guidance_embeds"] else 256
        return token_room(self.tokenizer_2, most)

    def _native_size(self) -> int:
        return NATIVE_SIZE

    def _blocks(self) -> Sequence[nn.Module]:
        return [*self.transformer.transformer_blocks, *self.transformer.single_transformer_blocks]
