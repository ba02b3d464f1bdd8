"""Scoring of stored predictions: any protocol, without the model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from diffcorr.errors import ProtocolError
from diffcorr.metrics.columns import pair_columns
from diffcorr.metrics.functional.pck import correct_points
from diffcorr.metrics.matching import Handling, Matched, match_points
from diffcorr.metrics.pck import PCK
from diffcorr.metrics.protocols import MaskProtocol, PointProtocol
from diffcorr.metrics.segmentation import SegmentationScore
from diffcorr.types import Pair, PointPrediction, SegmentationDataset

FRESH = Handling(missing="error", unknown="skip", duplicates="last", nan="wrong")
"""For predictions just made: a list of pairs may be a part of what was predicted."""


def score_points(
    predictions: Iterable[PointPrediction], pairs: Sequence[Pair], protocol: str | PointProtocol = "standard"
) -> PCK:
    """Score one method's points on a list of pairs.

    Args:
        predictions: at least one for every keypoint of every pair, the last one counts; those of other
            pairs are left out; one that is not finite is wrong. `match_points` chooses otherwise.
        pairs: the pairs to score; the index of a pair in the metric is its place in this list.
        protocol: a protocol, or its name.

    Returns:
        The metric, ready for `compute` and `per_pair`.

    Raises:
        ProtocolError: a keypoint was not predicted, a pair is there twice, or a pair cannot be scored
            under the protocol.
        UnknownNameError: unknown protocol.
    """
    return score_matched(match_points(pair_columns(pairs), predictions, FRESH), protocol)


def score_matched(matched: Matched, protocol: str | PointProtocol = "standard") -> PCK:
    """Score matched predictions under a protocol, all pairs at once.

    Pairs of which no keypoint is scored are not in the metric.

    Raises:
        ProtocolError: a pair cannot be scored under the protocol.
        UnknownNameError: unknown protocol.
    """
    metric = PCK(protocol)
    columns, scored = matched.columns, matched.scored
    sizes = np.bincount(columns.owner[scored], minlength=len(columns.pairs))
    kept = sizes > 0
    place, category, length, scale, size = (
        torch.from_numpy(values[kept])
        for values in (
            np.arange(len(columns.pairs)),
            columns.category,
            metric.protocol.threshold_lengths(columns),
            metric.protocol.scales(columns),
            sizes,
        )
    )
    pred, target = (torch.from_numpy(points[scored]) for points in (matched.points, columns.target))
    metric.update(pred, target, length, place, category, scale, size)
    return metric


def correct_of_points(
    matched: Matched, protocol: PointProtocol, alphas: Sequence[float] | None = None
) -> Tensor:
    """Which keypoints of all pairs are correct, (A, N), at the protocol's alphas or others.

    A keypoint that is not scored (`Matched.scored`) is False here; leave it out of averages.
    """
    columns = matched.columns
    owner = torch.from_numpy(columns.owner)
    return correct_points(
        torch.from_numpy(matched.points),
        torch.from_numpy(columns.target),
        torch.from_numpy(protocol.threshold_lengths(columns))[owner],
        protocol.alphas if alphas is None else alphas,
        inclusive=protocol.inclusive,
        scale=torch.from_numpy(protocol.scales(columns))[owner],
    ) & torch.from_numpy(matched.scored)


def score_masks(
    masks: Mapping[str, np.ndarray],
    dataset: SegmentationDataset,
    protocol: str | MaskProtocol = "per_image",
    places: Iterable[int] | None = None,
) -> SegmentationScore:
    """Score one method's masks on a data set.

    Args:
        masks: image id -> (H, W) integer segment ids, at the size of the label; asked for one by one, so
            that a mapping that reads them from disk keeps one at a time.
        dataset: the images to score; the index of an image in the metric is its index in the data set.
        protocol: a protocol, or its name.
        places: indices of the images to score; None for all.

    Returns:
        The metric, ready for `compute`, `per_class` and `per_image`.

    Raises:
        ProtocolError: an image has no mask, or one of another size than its label; or a data set without
            labels, before any image is read.
        UnknownNameError: unknown protocol.
    """
    # not all data sets have a background: PartWorld's are classes like any other
    background = getattr(dataset, "background", None)
    metric = SegmentationScore(len(dataset.classes), protocol, background)
    for index in range(len(dataset)) if places is None else places:
        sample = dataset[index]
        image_id = sample["image_id"]
        if image_id not in masks:
            raise ProtocolError(f"image {image_id!r} has no mask; predict it before scoring")
        mask = torch.from_numpy(np.asarray(masks[image_id]).astype(np.int64))
        metric.update(mask, torch.from_numpy(sample["label"]), index)
    return metric
