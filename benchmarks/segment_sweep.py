"""What a sweep over thresholds costs on cached attention.

``python -m benchmarks.segment_sweep [OVERRIDES] [images=8]``

Overrides are those of ``eval.py task=segmentation``, such as ``backbone=sd15 backbone.weights=random
method=diffseg_paper images=1``. Writes ``outputs/bench/segment_sweep.json``.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from typing import Any

import torch
from omegaconf import DictConfig

from benchmarks.measure import take_turns
from benchmarks.run import save
from diffcorr.config import compose, instantiate, run_metadata
from diffcorr.data.partworld import PartWorldSegmentation
from diffcorr.errors import DiffcorrError
from diffcorr.segmentation.diffseg import DiffSeg

NUM_IMAGES = 8
FACTORS = [0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.35, 1.5]
"""Thresholds of the sweep, as multiples of the configured one."""


def bench_sweep(config: DictConfig, num_images: int = NUM_IMAGES) -> list[dict[str, Any]]:
    """One full run at one threshold, and sweeps over ten: from the disk and in memory, and `auto`.

    Raises:
        DiffcorrError: the method is not DiffSeg.
    """
    method = instantiate(config.method)
    if not isinstance(method, DiffSeg):
        raise DiffcorrError(f"expected method=diffseg or another preset of it, found {config.method.name!r}")
    tau = method.tau if isinstance(method.tau, float) else 0.26
    full = replace(method, tau=tau)
    taus = [factor * tau for factor in FACTORS]
    backbone = instantiate(config.backbone)
    data = PartWorldSegmentation("val", num_images)
    images = [data[i]["image"] for i in range(num_images)]
    with tempfile.TemporaryDirectory() as folder:
        cached = replace(full, cache=folder)
        cached.segment(images, backbone=backbone)
        graphs = full.affinity(images, backbone)

        def in_memory() -> None:
            for image, graph in zip(images, graphs, strict=True):
                full.sweep(graph, image.shape[:2], taus)

        works = {
            "full run, one threshold": lambda: full.segment(images, backbone=backbone),
            "full run, auto": lambda: replace(full, tau="auto").segment(images, backbone=backbone),
            "ten thresholds from the disk": lambda: [
                replace(cached, tau=tau).segment(images, backbone=backbone) for tau in taus
            ],
            "ten thresholds in memory": in_memory,
        }
        measured = take_turns(works)
    base = measured["full run, one threshold"].median
    return [
        {
            "work": name,
            "seconds": found.median,
            "ratio_to_full_run": found.median / base,
            "peak_memory_bytes": found.peak_memory_bytes,
            "num_images": num_images,
            "num_maps": graphs[0].values.shape[0],
            "backbone": backbone.name,
            "device": str(backbone.device),
            "threads": torch.get_num_threads(),
        }
        for name, found in measured.items()
    ]


def main(arguments: list[str]) -> None:
    """Run what the command line asks for."""
    counts = [a.removeprefix("images=") for a in arguments if a.startswith("images=")]
    overrides = [a for a in arguments if not a.startswith("images=")]
    try:
        if counts and not (counts[-1].isdigit() and int(counts[-1])):
            raise DiffcorrError(f"expected images as a number such as {NUM_IMAGES}, found {counts[-1]!r}")
        config = compose("eval", ["task=segmentation", *overrides])
        records = bench_sweep(config, int(counts[-1]) if counts else NUM_IMAGES)
    except DiffcorrError as error:
        sys.exit(f"error: {error}")
    save("segment_sweep", {**run_metadata(config.seed), "arguments": arguments}, records)


if __name__ == "__main__":
    main(sys.argv[1:])
