"""Scoring of stored predictions: any protocol, without the model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch

from diffcorr.errors import ProtocolError
from diffcorr.metrics.pck import PCK
from diffcorr.metrics.protocols import MaskProtocol, PointProtocol
from diffcorr.metrics.segmentation import SegmentationScore
from diffcorr.types import Pair, PointPrediction, SegmentationDataset


def score_points(
    predictions: Iterable[PointPrediction], pairs: Sequence[Pair], protocol: str | PointProtocol = "standard"
) -> PCK:
    """Score one method's points on a list of pairs.

    Args:
        predictions: at least one for every keypoint of every pair; those of other pairs are left out.
        pairs: the pairs to score; the index of a pair in the metric is its place in this list.
        protocol: a protocol, or its name.

    Returns:
        The metric, ready for `compute` and `per_pair`.

    Raises:
        ProtocolError: a keypoint was not predicted, or a pair cannot be scored under the protocol.
        UnknownNameError: unknown protocol.
    """
    metric = PCK(protocol)
    points = {(p.pair_id, p.keypoint): (p.x, p.y) for p in predictions}
    for index, pair in enumerate(pairs):
        if missing := [name for name in pair.keypoints if (pair.pair_id, name) not in points]:
            raise ProtocolError(
                f"pair {pair.pair_id!r} has no prediction for {', '.join(missing)}; predict it before scoring"
            )
        pred = torch.tensor([points[pair.pair_id, name] for name in pair.keypoints], dtype=torch.float64)
        target = torch.tensor(pair.target_points, dtype=torch.float64)
        metric.update(pred, target, metric.protocol.threshold_length(pair), index)
    return metric


def score_masks(
    masks: Mapping[str, np.ndarray], dataset: SegmentationDataset, protocol: str | MaskProtocol = "per_image"
) -> SegmentationScore:
    """Score one method's masks on a data set.

    Args:
        masks: image id -> (H, W) integer segment ids, at the size of the label.
        dataset: the images to score; the index of an image in the metric is its index in the data set.
        protocol: a protocol, or its name.

    Returns:
        The metric, ready for `compute`, `per_class` and `per_image`.

    Raises:
        ProtocolError: an image has no mask, or one of another size than its label.
        UnknownNameError: unknown protocol.
    """
    metric = SegmentationScore(len(dataset.classes), protocol)
    for index in range(len(dataset)):
        sample = dataset[index]
        image_id = sample["image_id"]
        if image_id not in masks:
            raise ProtocolError(f"image {image_id!r} has no mask; predict it before scoring")
        mask = torch.from_numpy(np.asarray(masks[image_id]).astype(np.int64))
        metric.update(mask, torch.from_numpy(sample["label"]), index)
    return metric
