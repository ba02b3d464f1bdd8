"""Images a second of the groupers."""

from __future__ import annotations

from typing import Any

import torch
from omegaconf import DictConfig

from benchmarks.fit import half
from benchmarks.measure import take_turns
from diffcorr.config import instantiate, load_option
from diffcorr.data.partworld import PartWorldSegmentation

NUM_IMAGES = 4
METHODS = ("diffseg_reference", "diffseg_paper", "kmeans_c", "ncut_paper", "ncut_kway")


def bench_segment(config: DictConfig) -> list[dict[str, Any]]:
    """Every grouper, in batches of four."""
    dtype = half(torch.device(config.backbone.device))
    backbone = instantiate(config.backbone, dtype=dtype)
    data = PartWorldSegmentation("val", NUM_IMAGES)
    images = [data[i]["image"] for i in range(len(data))]
    methods = {name: instantiate(load_option("method", name, config)) for name in METHODS}
    works = {
        name: lambda method=method: method.segment(images, backbone=backbone)
        for name, method in methods.items()
    }
    return [
        {
            "mode": name,
            "backbone": backbone.name,
            "device": str(backbone.device),
            "dtype": dtype,
            "images_per_second": len(images) / measured.median,
            "flops_per_image": measured.flops / len(images),
            "peak_memory_bytes": measured.peak_memory_bytes,
            "num_images": len(images),
        }
        for name, measured in take_turns(works).items()
    ]
