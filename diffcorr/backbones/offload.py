"""Models that are larger than their card: what of them stays in main memory."""

from __future__ import annotations

from typing import Literal

import torch
from accelerate import cpu_offload
from torch import nn

Offload = Literal["none", "texts", "layers"]
"""``texts``: the text encoders stay on the CPU; ``layers``: so does the denoiser, and lends its layers."""


def set_apart(owner: nn.Module, name: str) -> None:
    """Take a part out of its owner's modules: it is no longer moved with it, and stays an attribute."""
    if name in owner._modules:
        owner.__dict__[name] = owner._modules.pop(name)


def stream(module: nn.Module, device: torch.device) -> None:
    """Bring each layer's weights to the device when it runs, and drop them there afterwards."""
    cpu_offload(module, execution_device=device)
