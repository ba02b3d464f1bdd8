"""What the families without a U-Net share: one resolution, patches of the latent, blocks in a row."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from diffcorr.backbones.base import Kind, LayerInfo
from diffcorr.backbones.latent import LatentBackbone, tokenized
from diffcorr.errors import BackboneError


class TransformerBackbone(LatentBackbone):
    """A frozen latent diffusion model with a transformer over patches of ``patch`` x ``patch`` latents.

    No paper has fitted prompts to these models: unless told otherwise, four layers spread over the third
    quarter of the depth are read, where the layers 7..10 of Stable Diffusion's 16 lie.
    """

    folder = "transformer"
    prompt_is_context = False  # an embedder stands between the prompt and the keys
    transformer: Any

    @property
    def patch(self) -> int:
        """Side of a patch in latents."""
        return int(self.transformer.config["patch_size"])

    @abstractmethod
    def _reads(self, name: str, kind: Kind) -> bool | None:
        """Whether the module is an attention layer of that kind: jointly with the other kind (True), alone
        (False), or not at all (None)."""

    def _attention_modules(self) -> dict[str, Any]:
        return {name: m for name, m in self.transformer.named_modules() if hasattr(m, "to_q")}

    def _layer_infos(self, kind: Kind) -> tuple[LayerInfo, ...]:
        modules = self._modules_by_path
        found = [(name, joint) for name in modules if (joint := self._reads(name, kind)) is not None]
        return tuple(
            LayerInfo(name, index, kind, modules[name].heads, self.patch, joint=joint)
            for index, (name, joint) in enumerate(found)
        )

    def _default_layers(self) -> tuple[int, ...]:
        depth = len(self.layers("cross"))
        return tuple(dict.fromkeys(depth // 2 + step * depth // 16 for step in range(4)))

    def _check_sides(self, latents: Tensor) -> None:
        """BackboneError unless the latent can be cut into patches."""
        if any(side % self.patch for side in latents.shape[-2:]):
            multiple = self.latent_downscale * self.patch
            height, width = (side * self.latent_downscale for side in latents.shape[-2:])
            raise BackboneError(
                f"expected sides that are multiples of {multiple} pixels for {self.name}, found "
                f"{height}x{width}: resize the image"
            )

    def _blocks(self) -> Sequence[nn.Module]:
        return list(self.transformer.transformer_blocks)

    def _grid(self, output: Any) -> Tensor:
        image_BND = output[-1] if isinstance(output, tuple) else output
        assert self.map_origin is not None
        height, width = (side // self.patch for side in self.map_origin)
        # where text and image are one sequence, the image is its end
        return image_BND[:, -height * width :].transpose(1, 2).unflatten(2, (height, width))


def t5_states(
    encoder: Any, tokenizer: Any, texts: Sequence[str], length: int, masked: bool = False
) -> tuple[Tensor, list[list[str]]]:
    """Last hidden states (B, P, D) of a T5 encoder, and the tokens.

    Args:
        encoder, tokenizer: of T5.
        texts: B texts.
        length: P.
        masked: whether the encoder looks away from padding. Then padding is given the embedding of the
            text's last token: cross-attention to an empty text is as if padding were masked there too.
    """
    ids, mask, strings = tokenized(tokenizer, texts, length)
    device = next(encoder.parameters()).device
    ids, mask = ids.to(device), mask.to(device)
    states: Tensor = encoder(ids, attention_mask=mask if masked else None)[0]
    if masked:
        rows = torch.arange(len(ids), device=device)[:, None]
        places = torch.minimum(torch.arange(ids.shape[1], device=device)[None], mask.sum(1, keepdim=True) - 1)
        states = states[rows, places]
    return states, strings


def token_room(tokenizer: Any, most: int) -> int:
    """Tokens of a prompt: ``most``, or fewer where the tokenizer takes no more."""
    return most if tokenizer is None else min(most, tokenizer.model_max_length)
