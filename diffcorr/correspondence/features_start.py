"""Start a fit from the model's own features: the best linear read-out of the layers' attention queries.

At a pixel u, head c of layer l gives token k the score s = q(u) W e / sqrt(d), linear in the token's
embedding e. If the other tokens stay as they are, a probability p is reached where s is logit(p) plus the
logarithm of the sum of their exponentials. With the Gaussian target for p that is a linear equation in e
for every pixel, head and layer; their ridge solution, weighted by p (1 - p) as in the first step of a
logistic regression, needs a few forward passes and no gradient.

All of an equation lies in the d numbers of its head: sums over pixels and passes are kept as d x d matrices
of each head, and become equations in e (D numbers) only once, before they are solved.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import isqrt
from typing import Any

import torch
from torch import Tensor

from diffcorr.attention.base import AttentionRead, AttentionVariant
from diffcorr.attention.capture import Trunk, read_prompts
from diffcorr.backbones.base import Backbone, LayerSpec

RANGE = (0.01, 0.95)  # of the wanted probabilities: logits stay finite

Target = Callable[[int], tuple[Tensor, Tensor]]
"""The wanted probabilities (N, K, side, side) and weights (N, K) of N prompts at a side."""


class _Equations(AttentionVariant):
    """Of each prompt, fitted token and head: the sums (B, K, C, d, d + 1) of both sides of its equations."""

    bounded = False

    def __init__(self, others: Sequence[int], target: Target, timesteps: tuple[int, ...]) -> None:
        self.others, self.target, self.timesteps = list(others), target, timesteps

    def __call__(self, read: AttentionRead) -> Tensor:
        query_BCNd = read.query.to(read.scores.dtype) * read.scale
        claimed_BCN = read.scores[..., self.others].logsumexp(-1)
        wanted, shown = (value.to(query_BCNd) for value in self.target(isqrt(query_BCNd.shape[2])))
        # a trainer's low precision would make the equations singular
        with torch.autocast(query_BCNd.device.type, enabled=False):
            p_BKN = wanted.clamp(*RANGE).flatten(2)
            weights_BKN = p_BKN * (1 - p_BKN) * shown[..., None]
            scores_BKCN = p_BKN.logit()[:, :, None] + claimed_BCN[:, None]
            weighted = (query_BCNd[:, None] * weights_BKN[:, :, None, :, None]).transpose(-1, -2)
            sides = [query_BCNd[:, None].expand(*scores_BKCN.shape, -1), scores_BKCN[..., None]]
            return weighted @ torch.cat(sides, -1)


class FeaturesStart:
    """Gathers the equations of N prompts from any number of passes, and solves them.

    Args:
        backbone: frozen.
        layers: cross-attention layers that the fit reads.
        tokens: K tokens of each prompt that are fitted.
        num_prompts: N.
        ridge: what is added to the equations' diagonal, as a fraction of its mean.
        timesteps: noise levels of every pass; none: the one that a pass names.
    """

    def __init__(
        self,
        backbone: Backbone,
        layers: LayerSpec,
        tokens: Sequence[int],
        num_prompts: int,
        ridge: float,
        timesteps: tuple[int, ...] = (),
    ) -> None:
        self.backbone, self.layers, self.tokens = backbone, layers, list(tokens)
        self._num_prompts, self._ridge, self._timesteps = num_prompts, ridge, timesteps
        self._sums: dict[str, Tensor] = {}  # by layer, (N, K, C, d, d + 1)

    @torch.no_grad()
    def gather(
        self,
        prompts: Sequence[int],
        latents_Uchw: Tensor,
        noise: Tensor,
        timestep: int,
        prompts_BPD: Tensor,
        target: Target,
        places: Sequence[int],
        trunk: Trunk = "prompt",
    ) -> None:
        """Add the equations of one pass.

        Args:
            prompts: which of the N prompts is read in each row; one may be read in several.
            latents_Uchw: latents without noise.
            noise: of the same shape.
            timestep: noise level, 0..999.
            prompts_BPD: the embeddings of the rows.
            target: what each row is to become.
            places: which of the latents each row sees.
            trunk: see ``read_prompts``.
        """
        num_tokens = self.backbone.embedding_shape[0]
        others = [token for token in range(num_tokens) if token not in self.tokens]
        maps = read_prompts(
            self.backbone,
            latents_Uchw,
            noise,
            timestep,
            prompts_BPD,
            self.layers,
            _Equations(others, target, self._timesteps),
            rows=places,
            trunk=trunk,
        )
        rows = torch.tensor(list(prompts), device=self.backbone.device)
        for name, read in maps.items():
            if name not in self._sums:
                self._sums[name] = read.tensor.new_zeros(self._num_prompts, *read.tensor.shape[1:])
        for name, read in maps.items():  # after all else: a pass that ran out of memory is repeated
            self._sums[name].index_add_(0, rows, read.tensor)

    @torch.no_grad()
    def solve(self) -> Tensor:
        """The tokens' embeddings (N, K, D)."""
        modules: Any = self.backbone.attention_modules()
        left, right = 0.0, 0.0
        unit_DD = torch.eye(self.backbone.embedding_shape[1]).to(self.backbone.device, self.backbone.dtype)
        with torch.autocast(self.backbone.device.type, enabled=False):
            for name, sums_NKCde in self._sums.items():
                heads, size = sums_NKCde.shape[2:4]
                to_k = modules[name].to_k  # asked as a module: its weights may come only when it runs
                weight_CdD = to_k(unit_DD).T.to(sums_NKCde).unflatten(0, (heads, size))
                grams, answers = sums_NKCde[..., :-1], sums_NKCde[..., -1]
                turned = weight_CdD.flatten(0, 1).T
                left = left + turned @ (grams @ weight_CdD).flatten(2, 3)
                right = right + answers.flatten(2) @ turned.T
            assert isinstance(left, Tensor)
            assert isinstance(right, Tensor)
            mean = left.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
            eye = torch.eye(left.shape[-1]).to(left)
            factor = torch.linalg.cholesky(left + self._ridge * mean.clamp(min=1e-12) * eye)
            return torch.cholesky_solve(right[..., None], factor)[..., 0]
