"""Read the attention of chosen layers during one denoising pass, and leave no trace."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from diffcorr.attention.base import AttentionVariant
from diffcorr.attention.mean import MeanAttention
from diffcorr.attention.recorders import (
    AttentionKeeper,
    AttentionMap,
    AttentionRecorder,
    Beside,
    JointRecorder,
)
from diffcorr.backbones.base import Backbone, Kind, LayerInfo, LayerSpec
from diffcorr.backbones.joint_processor import JointAttentionProcessor
from diffcorr.errors import LayerError

Trunk = Literal["prompt", "null"]
"""Which prompt a model follows on its way to the layers that are read, see ``read_prompts``."""


@contextmanager
def capture(
    backbone: Backbone,
    layers: LayerSpec = "all",
    kind: Kind = "cross",
    *,
    variant: AttentionVariant | None = None,
    token: int | Sequence[int] | None = None,
    stop_early: bool = True,
    prompts_NPD: Tensor | None = None,
    rows: Sequence[int] | None = None,
) -> Iterator[dict[str, AttentionMap]]:
    """Within the block, every ``backbone.denoise`` fills the dict with its maps.

    Args:
        backbone: whose attention is read; it is restored at the end, whatever happens.
        layers: which layers, as ``Backbone.resolve_layers`` understands them.
        kind: ``'cross'`` or ``'self'``.
        variant: how the heads of a layer become one map; None = their mean.
        token: the only prompt token, or tokens, whose columns are read and kept; None keeps all.
        stop_early: run nothing after the last layer that is read (``denoise`` returns None).
        prompts_NPD: what cross-attention is read for instead of the prompt that the pass itself follows;
            gradients reach it through the read alone, also where the pass runs without.
        rows: which latent of the pass each of these prompts sees; None = its own.

    Yields:
        A dict of maps of the latest pass, by the layer's full name, in the order of the layers.

    Raises:
        LayerError: the block ended and no attention was recorded, ``token`` is no prompt token, or
            ``prompts_NPD`` of a model whose attention does not take its keys from the prompt itself.
        UnknownNameError: a layer that does not exist.
    """
    chosen = backbone.resolve_layers(kind, layers)
    num_tokens = backbone.embedding_shape[0]
    wanted = None if token is None else (token,) if isinstance(token, int) else tuple(token)
    beside = None if prompts_NPD is None else Beside(prompts_NPD, rows or range(len(prompts_NPD)))
    if wanted is not None and (kind != "cross" or not all(0 <= t < num_tokens for t in wanted)):
        raise LayerError(
            f"expected a token in 0..{num_tokens - 1} of cross-attention, found {token} of {kind}"
        )
    if beside is not None and not backbone.prompt_is_context:
        raise LayerError(
            f"expected a model whose attention reads the prompt itself (a U-Net), found {backbone.name}: "
            "use trunk=prompt"
        )
    variant = variant or MeanAttention()
    modules: Mapping[str, Any] = backbone.attention_modules()
    maps: dict[str, AttentionMap] = {}
    keepers = _partners(backbone, chosen) if variant.needs_self and kind == "cross" else {}
    names = [layer.name for layer in (*chosen, *keepers.values())]
    originals: dict[str, Any] = {name: modules[name].processor for name in names}
    try:
        for layer in chosen:
            last = stop_early and layer is chosen[-1]
            column = token if token is None or isinstance(token, int) else wanted
            joint = isinstance(originals[layer.name], JointAttentionProcessor)
            build = JointRecorder if joint else AttentionRecorder
            processor = build(backbone, layer, variant, column, maps, beside, stop=last)
            modules[layer.name].set_processor(processor)
            if isinstance(processor, AttentionRecorder) and layer.name in keepers:
                partner = keepers[layer.name]
                modules[partner.name].set_processor(AttentionKeeper(partner, processor))
        yield maps
    finally:
        for name, processor in originals.items():
            modules[name].set_processor(processor)
    if not maps:
        raise LayerError(
            f"expected {kind}-attention of {', '.join(layer.name for layer in chosen)}, recorded nothing: "
            "call backbone.denoise inside of the capture block"
        )


def _partners(backbone: Backbone, chosen: Sequence[LayerInfo]) -> dict[str, LayerInfo]:
    """Of each cross-attention layer the self-attention of the same block, which runs before it.

    Raises:
        LayerError: a block has none.
    """
    blocks = {layer.name.rpartition(".")[0]: layer for layer in backbone.layers("self")}
    found = {}
    for layer in chosen:
        if layer.joint:  # the layer itself is both
            continue
        partner = blocks.get(layer.name.rpartition(".")[0])
        if partner is None:
            raise LayerError(
                f"expected self-attention in the block of {layer.name}, found none: read another layer"
            )
        found[layer.name] = partner
    return found


def read_prompts(
    backbone: Backbone,
    latents_Uchw: Tensor,
    noise: Tensor,
    timestep: int,
    prompts_NPD: Tensor,
    layers: LayerSpec,
    variant: AttentionVariant | None = None,
    token: int | Sequence[int] | None = None,
    *,
    rows: Sequence[int] | None = None,
    trunk: Trunk = "prompt",
    stop_early: bool = True,
) -> dict[str, AttentionMap]:
    """Cross-attention of N prompts in U noisy latents.

    Args:
        backbone: frozen.
        latents_Uchw: latents without noise.
        noise: of the same shape.
        timestep: noise level, 0..999, unless the variant has its own: of several the maps are averaged.
        prompts_NPD: what is read.
        layers, variant, token, stop_early: as in ``capture``.
        rows: which latent each prompt sees; None = its own.
        trunk: ``'prompt'``: the model follows each prompt on its way to the layers that are read, as
            in the papers; ``'null'``: it follows the empty prompt, one pass serves all prompts that see
            a latent, and gradients do not run through the model.
    """
    seen = list(range(len(latents_Uchw)) if rows is None else rows)
    distinct = sorted(set(seen))
    places = [distinct.index(row) for row in seen]
    own: dict[str, Any] = {"variant": variant, "token": token, "stop_early": stop_early}
    mean: dict[str, AttentionMap] = {}
    timesteps = (variant.timesteps if variant is not None else ()) or (timestep,)
    for level in timesteps:
        noisy = backbone.add_noise(latents_Uchw, noise.to(latents_Uchw), level)
        if trunk == "prompt":
            with capture(backbone, layers, **own) as maps:
                backbone.denoise(noisy, level, prompts_NPD, rows)
        else:
            beside: dict[str, Any] = {"prompts_NPD": prompts_NPD, "rows": places}
            with capture(backbone, layers, **own, **beside) as maps, torch.no_grad():
                backbone.denoise(noisy[distinct], level, backbone.null_prompt())
        for name, found in maps.items():
            share = found.tensor / len(timesteps) if len(timesteps) > 1 else found.tensor
            share = mean[name].tensor + share if name in mean else share
            mean[name] = AttentionMap(share, found.size, found.layer)
    return mean


def resize_maps(maps: Mapping[str, AttentionMap], size: int) -> Tensor:
    """The maps of several layers, bilinear to a common side.

    Returns:
        (B, L, size, size) of one token; (B, L, T, size, size) of several.
    """
    resized = []
    for m in maps.values():
        grid = m.grid.unsqueeze(1) if m.tensor.ndim == 2 else m.grid.movedim(-1, 1)
        bigger = F.interpolate(grid, size=(size, size), mode="bilinear", align_corners=False)
        resized.append(bigger[:, 0] if m.tensor.ndim == 2 else bigger)
    return torch.stack(resized, dim=1)
