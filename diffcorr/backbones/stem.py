"""What runs before the first cross-attention knows no prompt: prompts that see one latent share it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn


def stem_of(unet: UNet2DConditionModel) -> list[nn.Module]:
    """The modules that work on the latent alone, in the order in which they run."""
    found: list[nn.Module] = [unet.conv_in]
    blocks: Any = unet.down_blocks
    for block in blocks:
        if not getattr(block, "has_cross_attention", False):
            found += [*block.resnets, *(block.downsamplers or [])]
            continue
        attention = block.attentions[0]
        first = attention.transformer_blocks[0]
        return [*found, block.resnets[0], attention.norm, attention.proj_in, first.norm1, first.attn1]
    return found


@contextmanager
def shared(modules: Sequence[nn.Module], rows: Sequence[int]) -> Iterator[None]:
    """Within the block, each module computes one row of those that are equal and repeats it.

    Args:
        modules: whose tensor arguments and result have the batch first.
        rows: batch rows with the same number are equal.
    """
    distinct = sorted(set(rows))
    if len(distinct) == len(rows):
        yield
        return
    first = torch.tensor([list(rows).index(row) for row in distinct])
    place = torch.tensor([distinct.index(row) for row in rows])

    def once(forward: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def pick(value: Any) -> Any:
            batched = isinstance(value, Tensor) and value.ndim > 0 and len(value) == len(rows)
            return value[first.to(value.device)] if batched else value

        def run(*args: Any, **kwargs: Any) -> Tensor:
            out = forward(*map(pick, args), **{key: pick(value) for key, value in kwargs.items()})
            return out[place.to(out.device)]

        return run

    before = [module.__dict__.get("forward") for module in modules]  # another may have put its own there
    try:
        for module in modules:
            module.forward = once(module.forward)
        yield
    finally:
        for module, own in zip(modules, before, strict=True):
            module.__dict__.pop("forward", None)
            if own is not None:
                module.__dict__["forward"] = own
