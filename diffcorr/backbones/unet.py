"""Stable Diffusion 1.x and 2.x: a ``UNet2DConditionModel`` that looks at the tokens of CLIP."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from diffusers.models.attention_processor import Attention
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from diffcorr.backbones.base import Kind, LayerInfo
from diffcorr.backbones.latent import LatentBackbone, tokenized
from diffcorr.backbones.processor import AttentionProcessor
from diffcorr.backbones.stem import stem_of
from diffcorr.errors import BackboneError


class UNetBackbone(LatentBackbone):
    """A frozen latent diffusion model with a conditional U-Net.

    Its attention is read and its latents are noised; what it predicts (noise in SD 1.x, velocity in
    SD 2.1 at 768 pixels) is never used, so that the kind of prediction changes nothing here.

    Args:
        unet: the denoiser.
        vae: the autoencoder.
        scheduler: only its ``alphas_cumprod`` are used.
        text_encoder, tokenizer: may be absent; then ``encode_prompt`` raises.
        name: how the user calls it.
        paper_layers: cross-attention layers that prompt fitting reads; None = the lowest
            resolution of the up path with cross-attention and the first layer of the next one,
            which are layers 7..10 of SD 1.x (Hedlin et al. 2023, section 4).
        image_size: side of the input in pixels; None = the side the U-Net was configured for.
    """

    folder = "unet"
    model_class = UNet2DConditionModel
    text_parts: ClassVar[Mapping[str, Any]] = {"text_encoder": CLIPTextModel, "tokenizer": CLIPTokenizer}
    prompt_note = "all token embeddings are optimised"
    unet: UNet2DConditionModel
    text_encoder: Any
    tokenizer: Any

    def __init__(
        self,
        unet: UNet2DConditionModel,
        vae: AutoencoderKL,
        scheduler: DDIMScheduler,
        text_encoder: CLIPTextModel | None = None,
        tokenizer: CLIPTokenizer | None = None,
        *,
        name: str = "unet",
        paper_layers: Sequence[int] | None = None,
        image_size: int | None = None,
        **more_texts: Any,
    ) -> None:
        super().__init__(
            unet,
            vae,
            scheduler,
            {"text_encoder": text_encoder, "tokenizer": tokenizer, **more_texts},
            unet.config["cross_attention_dim"],
            name=name,
            paper_layers=paper_layers,
            image_size=image_size,
        )
        self._stem = stem_of(unet)

    @classmethod
    def fits(cls, config: Mapping[str, Any]) -> bool:
        """Whether a denoiser is such a U-Net, without conditions beside the prompt."""
        return super().fits(config) and config.get("addition_embed_type") is None

    def _predict(self, latents: Tensor, timestep: int, embeds_BPD: Tensor) -> Tensor:
        added = self._added(latents)
        output: Tensor = self.unet(latents, timestep, embeds_BPD, added_cond_kwargs=added).sample
        return output

    def _added(self, latents: Tensor) -> dict[str, Tensor] | None:
        """Conditions beside the prompt."""
        return None

    def _encode_prompt(self, texts: Sequence[str]) -> tuple[Tensor, list[list[str]]]:
        """Last hidden states (B, P, D) of the text encoder and the padded tokens as strings."""
        self._need_texts()
        ids, _, strings = tokenized(self.tokenizer, texts, self.embedding_shape[0])
        return self.text_encoder(ids.to(self.text_encoder.device))[0], strings

    def _processor(self) -> Any:
        return AttentionProcessor()

    def _attention_modules(self) -> dict[str, Any]:
        # named_modules lists down, up, mid; they run down, mid, up
        found = {name: m for name, m in self.unet.named_modules() if isinstance(m, Attention)}
        order = ("down_blocks", "mid_block", "up_blocks")
        return dict(sorted(found.items(), key=lambda pair: order.index(pair[0].split(".")[0])))

    def _layer_infos(self, kind: Kind) -> tuple[LayerInfo, ...]:
        depth = len(self.unet.config["down_block_types"]) - 1

        def downscale(name: str) -> int:
            part, block = name.split(".")[:2]
            if part == "mid_block":
                return 2**depth
            return 2 ** (int(block) if part == "down_blocks" else depth - int(block))

        modules = self._modules_by_path
        names = [name for name in modules if name.endswith("attn2") == (kind == "cross")]
        return tuple(
            LayerInfo(name, index, kind, modules[name].heads, downscale(name))
            for index, name in enumerate(names)
        )

    def _default_layers(self) -> tuple[int, ...]:
        up = [layer for layer in self.layers("cross") if layer.name.startswith("up_blocks")]
        if not up:
            raise BackboneError(f"expected cross-attention in the up path of {self.name}, found none")
        sides = sorted({layer.downscale for layer in up}, reverse=True)
        chosen = [layer for layer in up if layer.downscale == sides[0]]
        chosen += [layer for layer in up if layer.downscale in sides[1:2]][:1]
        return tuple(layer.index for layer in chosen)

    def _blocks(self) -> Sequence[nn.Module]:
        blocks: Any = self.unet.up_blocks
        return list(blocks)

    def _grid(self, output: Any) -> Tensor:
        grid: Tensor = output
        return grid
