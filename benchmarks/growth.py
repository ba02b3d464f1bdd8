"""How cost grows with queries, rounds and image size: ``python -m benchmarks.growth [OVERRIDES]``.

Times ten Adam steps and the reading of one target, on random points of a random picture, and writes
``outputs/bench/growth.json``. Overrides are those of eval.py.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig

from benchmarks.fit import half
from benchmarks.measure import take_turns
from benchmarks.modes import MODES, changed
from benchmarks.run import save
from diffcorr.backbones.base import Backbone
from diffcorr.config import compose, instantiate, run_metadata
from diffcorr.correspondence import PromptFit
from diffcorr.types import Query, UInt8Image

STEPS = 10


def measure(
    config: DictConfig, mode: str, backbone: Backbone, num_queries: int, rounds: int, size: int
) -> dict[str, Any]:
    """One record: seconds of a step and of the reading, and the memory they took."""
    random = np.random.default_rng(0)
    image: UInt8Image = random.integers(0, 256, (size, size, 3), dtype=np.uint8)
    points = random.uniform(0.1, 0.9, (num_queries, 2)) * size
    queries = [Query("random", "image", f"k{i:03}", (x, y)) for i, (x, y) in enumerate(points.tolist())]
    keywords = instantiate(changed(config.method, MODES[mode])).keywords
    fit = replace(keywords["fit"], steps=STEPS, init="gaussian", rounds=rounds, side=size)
    read = replace(keywords["transfer"], side=size)
    made: list[PromptFit] = []

    def work_fit() -> None:
        made[:] = [PromptFit(backbone, keywords["variant"], fit, read)]
        made[0].fit(queries, {"image": image})

    works = {"fit": work_fit, "transfer": lambda: made[0].locate(queries, image, "image")}
    measured = take_turns(works, turns=1)
    return {
        "mode": mode,
        "backbone": backbone.name,
        "device": str(backbone.device),
        "dtype": str(backbone.dtype).removeprefix("torch."),
        "queries": num_queries,
        "rounds": rounds,
        "image_size": size,
        "seconds_per_step": measured["fit"].median / STEPS,
        "seconds_transfer": measured["transfer"].median,
        "peak_memory_bytes": max(m.peak_memory_bytes or 0 for m in measured.values()) or None,
    }


def main(arguments: list[str]) -> None:
    """Run what the command line asks for."""
    config = compose("eval", arguments)
    backbone = instantiate(config.backbone, dtype=half(torch.device(config.backbone.device)))
    native = backbone.image_size
    cases = [(queries, 1, native) for queries in (1, 4, 16, 64)]
    cases += [(4, rounds, native) for rounds in (5, 10)]
    cases += [(4, 1, native * 3 // 2), (4, 1, native * 2)]
    records = [measure(config, mode, backbone, *case) for mode in ("exact", "packed") for case in cases]
    save("growth", {**run_metadata(config.seed), "arguments": arguments}, records)


if __name__ == "__main__":
    main(sys.argv[1:])
