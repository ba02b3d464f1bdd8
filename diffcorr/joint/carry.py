"""A label map of one image carried to another: what every way of doing it is, and the maths of voting."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from diffcorr.data.labels import LabelMap
from diffcorr.segmentation.base import Mask
from diffcorr.segmentation.proposals import bilinear_weights
from diffcorr.types import UInt8Image

ROWS = 1024
"""Target cells that are compared with the source at once: bounds the memory at ROWS x all source cells."""


@runtime_checkable
class LabelCarrier(Protocol):
    """Carries a label map from an annotated image to another. One file and one config each."""

    name: str

    def carry(
        self,
        source: UInt8Image,
        label: LabelMap,
        target: UInt8Image,
        source_key: str = "source",
        target_key: str = "target",
        category: str = "",
    ) -> LabelMap:
        """The label map of the target.

        Args:
            source: RGB of any size.
            label: (H, W) integers of the source: 0 for what is not the object, 1.. its classes, -1 unknown.
            target: RGB of any size.
            source_key, target_key: identities of the images, from which random numbers derive.
            category: of the pair, for features that read a text.

        Returns:
            (H, W) int64 at the target's size, values of `label` that are not negative.
        """


def label_shares(label: LabelMap, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """How much of each cell each class covers.

    Args:
        label: (H, W), -1 unknown.
        grid: (h, w).

    Returns:
        The classes that occur (C,), ascending, and their shares (C, h, w) of the cell's known pixels; 0
        in a cell without any.
    """
    classes = torch.from_numpy(np.unique(label[label >= 0]))
    one_hot = (torch.from_numpy(label)[None] == classes[:, None, None]).float()
    shares = F.adaptive_avg_pool2d(one_hot, grid)
    return classes, shares / shares.sum(0).clamp_min(1e-12)


def vote(
    source_Dhw: Tensor,
    shares_Chw: Tensor,
    target_Dhw: Tensor,
    *,
    neighbours: int = 5,
    temperature: float = 0.1,
) -> Tensor:
    """Each target cell asks the source cells that look most like it what they are.

    The common way to propagate labels between frames (Jabri et al., NeurIPS 2020; Caron et al., ICCV 2021),
    here between any two images, with no bound on the distance.

    Args:
        source_Dhw, target_Dhw: features on grids of any size.
        shares_Chw: classes of the source cells, see `label_shares`; cells of all zeros are not asked.
        neighbours: how many source cells are asked, those of the largest cosine.
        temperature: the larger, the more alike are their votes.

    Returns:
        (C, h, w) on the target's grid, >= 0, sums to 1 over classes.
    """
    classes_CN = shares_Chw.flatten(1)
    known = classes_CN.sum(0) > 0
    classes_CN = classes_CN[:, known]
    source_ND = F.normalize(source_Dhw.flatten(1).T, dim=1)[known]
    target_MD = F.normalize(target_Dhw.flatten(1).T, dim=1)
    count = min(neighbours, len(source_ND))
    votes = []
    for rows in target_MD.split(ROWS):
        cosines, places = (rows @ source_ND.T).topk(count, dim=1)
        weights = (cosines / temperature).softmax(1)
        votes.append(torch.einsum("mk,cmk->cm", weights, classes_CN[:, places]))
    return torch.cat(votes, 1).unflatten(1, target_Dhw.shape[1:])


def snap_to_segments(votes_CHW: Tensor, mask: Mask) -> Tensor:
    """Votes on object or not, made one for each segment of the target.

    A segment is the object's if the votes for class 0 have no majority in it. Which of the object's classes
    a pixel has is still its own vote.

    Args:
        votes_CHW: of the target's pixels, class 0 first.
        mask: (H, W) segment ids >= 0.

    Returns:
        (H, W) places among the classes.
    """
    ids = torch.from_numpy(mask).flatten()
    other = votes_CHW[0].flatten().double()
    inside = torch.bincount(ids, other) / torch.bincount(ids).clamp_min(1)
    is_object = (inside <= 0.5)[ids].view(mask.shape)
    return (1 + votes_CHW[1:].argmax(0)).where(is_object, 0)


def to_pixels(votes_Chw: Tensor, size: tuple[int, int]) -> Tensor:
    """Votes of cells, bilinear at the pixels of an image of (height, width)."""
    rows, columns = (
        bilinear_weights(cells, pixels, 0, cells).to(votes_Chw)
        for cells, pixels in zip(votes_Chw.shape[1:], size, strict=True)
    )
    return rows @ votes_Chw @ columns.T
