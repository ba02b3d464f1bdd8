"""Which layer, head and noise level carries the signal of a fitted set, without fitting anything anew."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from scipy.optimize import nnls
from torch import Tensor

from diffcorr.attention.mean import MeanAttention
from diffcorr.backbones.base import LayerInfo, LayerSpec
from diffcorr.correspondence.config import TransferConfig
from diffcorr.correspondence.pack import gaussian_target
from diffcorr.correspondence.predictor import PromptFit
from diffcorr.correspondence.transfer import TransferResult
from diffcorr.data.geometry import frame, image_size
from diffcorr.types import Pair, PointPrediction, UInt8Image

SIDE = 16  # of the maps from which weights are learned


class Place(NamedTuple):
    """Where attention is read: one layer at one noise level, of one head or (None) the mean of all."""

    timestep: int
    layer: str
    head: int | None


class Diagnosis:
    """Reads a fitted set once for each head and noise level; every reading tells of all layers at once.

    Crops lie on a grid and see the same noise, so that all places are compared on the same views.

    Args:
        method: whose embeddings are fitted; they stay as they are.
        timesteps: noise levels of the mean over heads, 0..999.
        layers: which layers are read.
        num_crops, num_noises: of the grid, see `TransferConfig`.

    Attributes:
        timestep: the method's own noise level, at which single heads are read.
        layers: the layers that are read.
        points: predictions of every pair so far, by place.
    """

    def __init__(
        self,
        method: PromptFit,
        timesteps: Sequence[int],
        layers: LayerSpec = "all",
        num_crops: int = 4,
        num_noises: int = 1,
    ) -> None:
        self.method = method
        self.layers: tuple[LayerInfo, ...] = method.backbone.resolve_layers("cross", layers)
        read = method.transfer_config
        self.timestep, self.sigma = read.timestep, method.fit_config.sigma
        self.timesteps = tuple(dict.fromkeys([*timesteps, read.timestep]))
        self._read = dataclasses.replace(
            read,
            layers=[layer.name for layer in self.layers],
            crops="grid",
            num_crops=num_crops,
            num_noises=num_noises,
        )
        self.points: dict[Place, list[PointPrediction]] = {}
        places = self.places()
        self._gram = torch.zeros(len(places), len(places), dtype=torch.float64)
        self._wanted = torch.zeros(len(places), dtype=torch.float64)

    def places(self) -> list[Place]:
        """The single heads of all layers."""
        return [
            Place(self.timestep, layer.name, head) for layer in self.layers for head in range(layer.num_heads)
        ]

    def add(self, pair: Pair, target: UInt8Image) -> None:
        """Read the queries of one pair, all of them fitted, everywhere."""
        for timestep in self.timesteps:
            read = dataclasses.replace(self._read, timestep=timestep)
            self._keep(pair, target, read, None)
        maps: dict[Place, list[Tensor]] = {}
        for head in range(max(layer.num_heads for layer in self.layers)):
            having = [layer.name for layer in self.layers if layer.num_heads > head]
            read = dataclasses.replace(self._read, layers=having)
            found = self._keep(pair, target, read, head)
            for name in having:
                small = [F.adaptive_avg_pool2d(r.layer_maps[name][None], SIDE).flatten() for r in found]
                maps[Place(self.timestep, name, head)] = small
        self._learn(pair, target, maps)

    def weights(self) -> dict[str, list[float]]:
        """Weights of all heads by layer, for ``WeightedAttention``: non-negative least squares.

        They bring the weighted sum of the heads' maps nearest to the Gaussian at the true point, in the
        squared error that the fit itself minimises (Hedlin et al. 2023, equation 4). They sum to 1.
        """
        size = len(self._wanted)
        scale = float(self._gram.diagonal().mean().clamp(min=1e-30))
        factor = torch.linalg.cholesky(self._gram / scale + 1e-9 * torch.eye(size, dtype=torch.float64))
        wanted = torch.linalg.solve_triangular(factor, self._wanted[:, None] / scale, upper=False)[:, 0]
        found, _ = nnls(factor.T.numpy(), wanted.numpy())
        found = found / (found.sum() or 1.0)
        by_layer: dict[str, list[float]] = {}
        for place, weight in zip(self.places(), found.tolist(), strict=True):
            by_layer.setdefault(place.layer, []).append(round(weight, 6))
        return by_layer

    def _keep(
        self, pair: Pair, target: UInt8Image, read: TransferConfig, head: int | None
    ) -> list[TransferResult]:
        """Read all layers in one way, and keep what each alone would answer."""
        variant = MeanAttention(None if head is None else [head])
        queries = pair.queries()
        reader = self.method.reading(read, variant)
        # PromptFit's own: a subclass may look at more than attention
        found = PromptFit.locate(
            reader, queries, target, f"{pair.dataset}/{pair.target_id}", head is not None
        )
        for keypoint, query, result in zip(pair.keypoints, queries, found, strict=True):
            for layer, point in result.layer_points.items():
                told = PointPrediction(pair.pair_id, keypoint, query.id, *point, result.confidence)
                self.points.setdefault(Place(read.timestep, layer, head), []).append(told)
        return found

    def _learn(self, pair: Pair, target: UInt8Image, maps: dict[Place, list[Tensor]]) -> None:
        """Add the least-squares equations of the pair's keypoints."""
        side = self._read.side or self.method.backbone.image_size
        geometry = frame(image_size(target), side, self._read.frame)
        truth = geometry.forward(torch.tensor(pair.target_points, dtype=torch.float64)) / side
        gaussians = gaussian_target(truth, SIDE, self.sigma).flatten(1)
        for k, gaussian in enumerate(gaussians):
            seen = torch.stack([maps[place][k] for place in self.places()]).double()
            self._gram += seen @ seen.T
            self._wanted += seen @ gaussian
