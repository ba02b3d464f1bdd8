"""Best buddies on the features of any source, and a moving-least-squares warp between them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from diffcorr.correspondence.base import check_pair
from diffcorr.correspondence.features.base import FeatureSource, sample
from diffcorr.correspondence.warp import DEFORMATIONS, Deformation, moving_least_squares
from diffcorr.data.geometry import image_size
from diffcorr.errors import DiffcorrError, UnknownNameError
from diffcorr.types import Pair, PointPrediction, UInt8Image


class BestBuddies:
    """Cells that are each other's nearest neighbours carry the query to the target.

    Best buddies (Dekel et al. 2015; Aberman et al. 2018, "Neural best-buddies", on features of VGG19) are the
    control points of a moving-least-squares warp in original pixels, see `moving_least_squares`.

    The papers' tables have rows "VGG+MLS" and "DINO+MLS". All that is known here of these baselines is in
    their name: neural best buddies on features of VGG or DINO, then such a warp. Which layers, image sizes
    and deformation they took is not. Aberman et al. search from coarse to fine over five layers and keep
    strong, well spread buddies; this class compares one layer at once and keeps all, or the
    ``num_buddies`` of the largest cosine.

    Args:
        features: where features come from.
        name: under which predictions are stored.
        deformation: ``affine`` or ``similarity``.
        falloff: how local the warp is, the paper's alpha.
        num_buddies: how many are kept; None = all.

    Raises:
        UnknownNameError: no such deformation.
        DiffcorrError: a falloff or a number out of range.
    """

    def __init__(
        self,
        features: FeatureSource,
        name: str = "best_buddies",
        deformation: Deformation = "affine",
        falloff: float = 1.0,
        num_buddies: int | None = None,
    ) -> None:
        if deformation not in DEFORMATIONS:
            raise UnknownNameError("deformation", deformation, DEFORMATIONS)
        if falloff <= 0:
            raise DiffcorrError(f"expected a falloff above 0, found {falloff}: the paper's is 1")
        if num_buddies is not None and num_buddies < 1:
            raise DiffcorrError(f"expected num_buddies of at least 1, found {num_buddies}: null keeps all")
        self.features, self.name = features, name
        self.deformation: Deformation = deformation
        self.falloff, self.num_buddies = falloff, num_buddies

    def predict(self, pair: Pair, source: UInt8Image, target: UInt8Image) -> list[PointPrediction]:
        """Warped points, inside the target; confidence = cosine of the features at both, negative ones 0."""
        check_pair(pair, source, target)
        source_Dhw = self.features(source, f"{pair.dataset}/{pair.source_id}", pair.category)
        target_Dhw = self.features(target, f"{pair.dataset}/{pair.target_id}", pair.category)
        places_source, places_target, cosines = mutual_nearest(source_Dhw, target_Dhw)
        if self.num_buddies is not None:
            best = cosines.sort(descending=True, stable=True).indices[: self.num_buddies]
            places_source, places_target = places_source[best], places_target[best]
        source_size, target_size = (places_source.new_tensor(image_size(image)) for image in (source, target))
        queries = pair.queries()
        points = places_source.new_tensor([q.point for q in queries]).view(-1, 2)
        warped = moving_least_squares(
            points, places_source * source_size, places_target * target_size, self.deformation, self.falloff
        )
        warped = warped.clamp(min=0).minimum(target_size)
        at_source = sample(source_Dhw, (points / source_size).to(source_Dhw))
        at_target = sample(target_Dhw, (warped / target_size).to(target_Dhw))
        confidence = F.cosine_similarity(at_source, at_target).clamp(0, 1).tolist()
        return [
            PointPrediction(pair.pair_id, keypoint, query.id, x, y, c)
            for keypoint, query, (x, y), c in zip(
                pair.keypoints, queries, warped.tolist(), confidence, strict=True
            )
        ]


def mutual_nearest(source_Dhw: Tensor, target_Dhw: Tensor, rows: int = 1024) -> tuple[Tensor, Tensor, Tensor]:
    """Cells of two images that are each other's nearest neighbours by cosine.

    There is always one: the pair of the largest cosine of all, the first of equals.

    Args:
        source_Dhw, target_Dhw: features on grids of any size.
        rows: source cells that are compared at once.

    Returns:
        Centres of the source and of the target cells as fractions (x, y) of their images, float64 (K, 2)
        each, in the order of source cells, and their cosines (K,).
    """
    source_ND, target_MD = (F.normalize(f.flatten(1).T, dim=1) for f in (source_Dhw, target_Dhw))
    forward, best = [], []
    back_cosine = source_ND.new_full((len(target_MD),), -torch.inf)
    back = torch.zeros(len(target_MD), dtype=torch.long, device=source_ND.device)
    for start in range(0, len(source_ND), rows):
        cosines_nM = source_ND[start : start + rows] @ target_MD.T
        found = cosines_nM.max(1)
        forward.append(found.indices)
        best.append(found.values)
        column = cosines_nM.max(0)
        better = column.values > back_cosine
        back_cosine = torch.where(better, column.values.to(back_cosine), back_cosine)
        back = torch.where(better, column.indices + start, back)
    there = torch.cat(forward)
    (mutual,) = torch.where(back[there] == torch.arange(len(there), device=there.device))
    return _centres(mutual, source_Dhw), _centres(there[mutual], target_Dhw), torch.cat(best)[mutual]


def _centres(cells_K: Tensor, features_Dhw: Tensor) -> Tensor:
    height, width = features_Dhw.shape[1:]
    rows = cells_K.div(width, rounding_mode="floor").double()
    return torch.stack([((cells_K % width).double() + 0.5) / width, (rows + 0.5) / height], 1)
