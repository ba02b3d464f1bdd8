"""Nearest neighbour on U-Net features: DIFT (Tang et al., NeurIPS 2023, arXiv 2306.03881)."""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor

from diffcorr.backbones.base import Backbone
from diffcorr.correspondence.base import check_pair
from diffcorr.correspondence.draws import SeededDraws
from diffcorr.data.geometry import frame, image_size, image_to_tensor
from diffcorr.types import Pair, Point, PointPrediction, UInt8Image


class DIFT:
    """The target pixel whose feature has the largest cosine with the query's.

    Features are the output of one up block, averaged over noise draws and interpolated to the
    input's resolution (section 4.1). The defaults are those of the paper for Stable Diffusion 2.1.

    Args:
        backbone: frozen.
        block: up block, 0 = the lowest resolution.
        timestep: noise level, 0..999.
        ensemble: noise draws that are averaged.
        prompt: text; ``{category}`` is replaced by the pair's.
        seed: of the noise, together with the image.
        cache_size: images whose features are kept.
    """

    name = "dift"

    def __init__(
        self,
        backbone: Backbone,
        block: int = 1,
        timestep: int = 261,
        ensemble: int = 8,
        prompt: str = "",
        seed: int = 0,
        cache_size: int = 32,
    ) -> None:
        self.backbone, self.block, self.timestep, self.ensemble = backbone, block, timestep, ensemble
        self.prompt, self.seed, self.cache_size = prompt, seed, cache_size
        self._cache: OrderedDict[tuple[str, str], Tensor] = OrderedDict()

    def predict(self, pair: Pair, source: UInt8Image, target: UInt8Image) -> list[PointPrediction]:
        """Nearest neighbours; confidence = cosine, negative ones 0."""
        check_pair(pair, source, target)
        prompt = self.prompt.format(category=pair.category)
        source_Dhw = self._features(f"{pair.dataset}/{pair.source_id}", source, prompt)
        target_Dhw = self._features(f"{pair.dataset}/{pair.target_id}", target, prompt)
        side = self.backbone.image_size
        to_source, to_target = (frame(image_size(image), side) for image in (source, target))
        queries = pair.queries()
        points = to_source.forward(torch.tensor([q.point for q in queries], dtype=torch.float64).view(-1, 2))
        wanted_QD = sample(source_Dhw, points.to(source_Dhw) / side)
        found, cosines = nearest(wanted_QD, target_Dhw, side)
        original = to_target.inverse(torch.tensor(found, dtype=torch.float64).view(-1, 2)).tolist()
        return [
            PointPrediction(pair.pair_id, keypoint, query.id, x, y, min(1.0, max(0.0, cosine)))
            for keypoint, query, (x, y), cosine in zip(
                pair.keypoints, queries, original, cosines, strict=True
            )
        ]

    @torch.no_grad()
    def _features(self, key: str, image: UInt8Image, prompt: str) -> Tensor:
        """Features (D, h, w) of an image."""
        if (key, prompt) in self._cache:
            self._cache.move_to_end((key, prompt))
            return self._cache[key, prompt]
        backbone = self.backbone
        pixels = image_to_tensor(image, frame(image_size(image), backbone.image_size))
        latent = backbone.encode(pixels[None])
        draws = SeededDraws("dift", self.seed, key)
        noise = torch.stack(
            [draws.noise(i, tuple(latent.shape[1:]), "gaussian") for i in range(self.ensemble)]
        )
        noisy = backbone.add_noise(latent.expand(self.ensemble, -1, -1, -1), noise.to(latent), self.timestep)
        embeds = backbone.encode_prompt([prompt])[0] if prompt else backbone.null_prompt()
        features = backbone.features(noisy, self.timestep, embeds, self.block).float().mean(0)
        self._cache[key, prompt] = features
        if len(self._cache) > self.cache_size:
            self._cache.popitem(last=False)
        return features


def sample(features_Dhw: Tensor, points_N2: Tensor) -> Tensor:
    """Bilinear features (N, D) at points given as fractions of the image."""
    grid = (points_N2 * 2 - 1).view(1, 1, -1, 2)
    found = F.grid_sample(
        features_Dhw[None], grid, mode="bilinear", padding_mode="border", align_corners=False
    )
    return found[0, :, 0].T


def nearest(
    wanted_QD: Tensor, features_Dhw: Tensor, side: int, rows: int = 32
) -> tuple[list[Point], list[float]]:
    """Pixel centres and cosines of the best match of each feature at ``side`` x ``side`` pixels.

    Target features are interpolated a few rows at a time: all of them would take gigabytes.
    """
    if not len(wanted_QD):
        return [], []
    centres = (torch.arange(side).to(features_Dhw) + 0.5) / side
    wanted_QD = F.normalize(wanted_QD, dim=1)
    strips = []
    for y in centres.split(rows):
        points = torch.stack(torch.meshgrid(centres, y, indexing="xy"), -1).view(-1, 2)
        strips.append(wanted_QD @ F.normalize(sample(features_Dhw, points), dim=1).T)
    cosines, indices = torch.cat(strips, 1).max(1)
    return [(i % side + 0.5, i // side + 0.5) for i in indices.tolist()], cosines.tolist()
