"""Start a fit from the model's own features: the best linear read-out of the layers' attention queries.

At a pixel u, head c of layer l gives token k the score s = q(u) W e / sqrt(d), linear in the token's
embedding e. If the other tokens stay as they are, a probability p is reached where s is logit(p) plus the
logarithm of the sum of their exponentials. With the Gaussian target for p that is a linear equation in e
for every pixel, head and layer; their ridge solution, weighted by p (1 - p) as in the first step of a
logistic regression, needs a few forward passes and no gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from diffcorr.attention.base import AttentionRead, AttentionVariant
from diffcorr.attention.capture import Trunk, read_prompts
from diffcorr.backbones.base import Backbone, LayerSpec

RIDGE = 1e-2  # of the mean diagonal
RANGE = (0.01, 0.95)  # of the wanted probabilities: logits stay finite


class _Features(AttentionVariant):
    """Scaled queries of all heads, and what the tokens that are not fitted already claim."""

    bounded = False

    def __init__(self, others: Sequence[int]) -> None:
        self.others = list(others)

    def __call__(self, read: AttentionRead) -> Tensor:
        """(B, N, C d + C)."""
        query = read.query.to(read.scores.dtype) * read.scale
        claimed = read.scores[..., self.others].logsumexp(-1)
        return torch.cat([query.transpose(1, 2).flatten(2), claimed.transpose(1, 2)], -1)


class FeaturesStart:
    """Gathers the equations of N prompts from any number of passes, and solves them.

    Args:
        backbone: frozen.
        layers: cross-attention layers that the fit reads.
        tokens: K tokens of each prompt that are fitted.
        num_prompts: N.
    """

    def __init__(
        self, backbone: Backbone, layers: LayerSpec, tokens: Sequence[int], num_prompts: int
    ) -> None:
        self.backbone, self.layers, self.tokens = backbone, layers, list(tokens)
        num_tokens, width = backbone.embedding_shape
        self._variant = _Features([p for p in range(num_tokens) if p not in self.tokens])
        shape = (num_prompts, len(self.tokens), width)
        precise = torch.promote_types(backbone.dtype, torch.float32)
        self._left = torch.zeros(*shape, width, device=backbone.device, dtype=precise)
        self._right = self._left.new_zeros(shape)

    @torch.no_grad()
    def gather(
        self,
        rows: slice,
        noisy_Uchw: Tensor,
        timestep: int,
        prompts_NPD: Tensor,
        target: Any,
        places: Sequence[int] | None = None,
        trunk: Trunk = "prompt",
    ) -> None:
        """Add the equations of one pass.

        Args:
            rows: which prompts these are.
            noisy_Uchw: their latents.
            timestep: of the latents.
            prompts_NPD: their embeddings.
            target: gives the wanted probabilities (N, K, side, side) and weights (N, K) at a side.
            places: which of the latents each prompt sees; None = its own.
            trunk: see ``read_prompts``.
        """
        modules: Any = self.backbone.attention_modules()
        maps = read_prompts(
            self.backbone,
            noisy_Uchw,
            timestep,
            prompts_NPD,
            self.layers,
            self._variant,
            rows=places,
            trunk=trunk,
        )
        # a trainer's low precision would make the equations singular
        with torch.autocast(self._left.device.type, enabled=False):
            left, right = torch.zeros_like(self._left[rows]), torch.zeros_like(self._right[rows])
            for name, read in maps.items():
                heads = read.layer.num_heads
                weight_CdD = modules[name].to_k.weight.to(left).unflatten(0, (heads, -1))
                query_NhC, claimed = (
                    read.tensor[..., :-heads].unflatten(-1, (heads, -1)),
                    read.tensor[..., -heads:],
                )
                features = torch.einsum("nhcd,cde->nhce", query_NhC, weight_CdD).flatten(1, 2)
                wanted, shown = (value.to(left) for value in target(read.size))
                p = wanted.clamp(*RANGE).flatten(2)
                scores = p.logit()[..., None] + claimed[:, None]  # (N, K, hw, C)
                weights = (p * (1 - p) * shown[..., None])[..., None].expand_as(scores).flatten(2)
                scores = scores.flatten(2)
                for k in range(len(self.tokens)):
                    weighted = features * weights[:, k, :, None]
                    left[:, k] += weighted.transpose(1, 2) @ features
                    right[:, k] += (weighted * scores[:, k, :, None]).sum(1)
            self._left[rows] += left  # at the end: a pass that ran out of memory is repeated
            self._right[rows] += right

    def solve(self) -> Tensor:
        """The tokens' embeddings (N, K, D)."""
        mean = self._left.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
        eye = torch.eye(self._left.shape[-1]).to(self._left)
        with torch.autocast(self._left.device.type, enabled=False):
            factor = torch.linalg.cholesky(self._left + RIDGE * mean.clamp(min=1e-12) * eye)
            return torch.cholesky_solve(self._right[..., None], factor)[..., 0]
