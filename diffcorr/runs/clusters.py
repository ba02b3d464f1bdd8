"""Stored segments brought under ids that agree across images, and stored again."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any, cast

from diffcorr.backbones.base import Backbone
from diffcorr.config import config_hash, instantiate, load_option
from diffcorr.correspondence.base import build_method
from diffcorr.joint import SegmentClustering
from diffcorr.runs.common import Run
from diffcorr.stores.masks import MaskStore, StoredMasks
from diffcorr.types import SegmentationDataset, UInt8Image

log = logging.getLogger(__name__)


class _Images(Mapping[str, UInt8Image]):
    """The images of a segmentation data set by id, read when asked for."""

    def __init__(self, data: SegmentationDataset, image_ids: list[str]) -> None:
        self.data, self.places = data, {image_id: place for place, image_id in enumerate(image_ids)}

    def __getitem__(self, image_id: str) -> UInt8Image:
        return self.data[self.places[image_id]]["image"]

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def __len__(self) -> int:
        return len(self.places)


def cluster_masks(
    run: Run,
    masks: StoredMasks,
    data: SegmentationDataset,
    backbone: Backbone,
    store: MaskStore,
    seed: int,
    with_baselines: bool,
) -> dict[str, StoredMasks]:
    """The masks of a method with global ids, by ``clusters`` of the configuration.

    The main process makes them, of a whole data set at once; the others wait and read what it stored.

    Args:
        run: its configuration has ``clusters``, and ``cluster_baselines``, names of the same group.
        masks: segments of every image of the data set.
        data: the images.
        backbone: for the features.
        store: where masks of global ids are kept, under ``<method>+<clusters>``.
        seed: of the run.
        with_baselines: whether the baselines are made, too.

    Raises:
        DiffcorrError: the data set has no classes, and the number of clusters is to be theirs.
    """
    names = run.config.get("cluster_baselines") or [] if with_baselines else []
    nodes = [run.config.clusters, *(load_option("clusters", name, run.config) for name in names)]
    found: dict[str, StoredMasks] = {}
    for node in nodes:
        clusters = cast(SegmentClustering, build_method(instantiate(node), backbone, run.variant()))
        identity: dict[str, Any] = {
            "clusters": node,
            "masks": masks.config_hash,
            "images": sorted(masks),
            "num_classes": len(data.classes),
            "backbone": backbone.identity(),
        }
        name = f"{masks.name}+{clusters.name}"
        kept = StoredMasks(store, masks.image_ids, name, seed, config_hash(identity))
        if run.processes.is_main and not kept.complete:
            log.info("%s, seed %d: clustering the segments of %d images", name, seed, len(masks))
            images = _Images(data, list(masks.image_ids))
            for image_id, ids in clusters(images, masks, len(data.classes), data.name).items():
                store.add(image_id, name, ids[masks[image_id]], seed, kept.config_hash)
        found[name] = kept
    run.processes.wait()
    return found
