"""Memory of a step of a fit on a true architecture, not run at all: ``python -m benchmarks.count_memory``.

The bytes of all tensors that live at once, on fake tensors, which have shapes only, for packs of one, two
and four prompts; what a card holds follows from the line through them. A library's work space and the
allocator's waste come on top, for which a tenth is kept back. Overrides as in ``benchmarks.run``.
"""

from __future__ import annotations

import json
import sys
import weakref
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from diffcorr.attention import AttentionVariant, resize_maps
from diffcorr.attention.capture import read_prompts
from diffcorr.backbones.base import Backbone
from diffcorr.config import compose, instantiate
from diffcorr.correspondence import FitConfig

DEFAULT = [
    "backbone=sd15",
    "backbone.weights=random",
    "backbone.dtype=bfloat16",
    "method=prompt_fit_paper",
]
CARDS_GB = (12, 24, 80, 141)
USABLE = 0.9


class LiveBytes(TorchDispatchMode):
    """Adds up the storages that operations make within the block, until nothing holds them any more.

    Attributes:
        now, peak: bytes.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for tensor in tree_flatten((args, kwargs))[0]:
            if isinstance(tensor, torch.Tensor):  # made before the block, or counted already
                self._know(tensor.untyped_storage(), 0)
        out = func(*args, **(kwargs or {}))
        for tensor in tree_flatten(out)[0]:
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                self._know(storage, storage.nbytes())
        return out

    def _know(self, storage: torch.UntypedStorage, size: int) -> None:
        key = storage._cdata
        if key in self._known:
            return
        self._known.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._forget, key, size)  # its address may be another's then

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def step_bytes(backbone: Backbone, config: FitConfig, variant: AttentionVariant, num_prompts: int) -> int:
    """Peak of one step, forward and backward, beside the weights."""
    with FakeTensorMode(allow_non_fake_inputs=True), LiveBytes() as live:
        image = torch.zeros(1, 3, backbone.image_size, backbone.image_size, dtype=backbone.dtype)
        with torch.no_grad():
            latents = backbone.encode(image).expand(num_prompts, -1, -1, -1).clone()
        prompts = torch.zeros(num_prompts, *backbone.embedding_shape, requires_grad=True)
        maps = read_prompts(
            backbone,
            latents,
            torch.zeros_like(latents),
            config.timestep,
            prompts,
            config.layers,
            variant,
            config.token,
            trunk=config.trunk,
            stop_early=config.stop_early,
        )
        side = config.loss_resolution or max(max(m.size) for m in maps.values())
        resize_maps(maps, side).mean(1).square().sum().backward()
    return live.peak


def main(arguments: list[str]) -> None:
    """Count what the command line asks for."""
    config = compose("eval", [*DEFAULT, *arguments])
    keywords = instantiate(config.method).keywords
    backbone = instantiate(config.backbone)
    weights = sum(p.numel() * p.element_size() for p in backbone.parameters())
    peaks = {n: step_bytes(backbone, keywords["fit"], keywords["variant"], n) for n in (1, 2, 4)}
    each = (peaks[4] - peaks[2]) / 2
    fixed = max(0.0, peaks[4] - 4 * each)
    record = {
        "backbone": backbone.name,
        "dtype": config.backbone.dtype,
        "arguments": arguments,
        "weights_gb": round(weights / 1e9, 2),
        "peak_gb": {n: round((weights + peak) / 1e9, 2) for n, peak in peaks.items()},
        "each_further_prompt_gb": round(each / 1e9, 3),
        "pack_size": {f"{gb} GB": int((USABLE * gb * 1e9 - weights - fixed) // each) for gb in CARDS_GB},
    }
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main(sys.argv[1:])
