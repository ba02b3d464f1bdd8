"""Seconds per query and per image: ``python benchmarks/run.py [backbone=sd15 backbone.weights=random]``.

Writes ``outputs/bench/fit.json`` and ``outputs/bench/segment.json``. Modes take turns in one run, the
median of several is reported, and the first turn, which warms up, is left out.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from diffcorr.config import compose, instantiate, run_metadata
from diffcorr.correspondence import FitConfig, FitItem, TransferConfig, fit_prompts, transfer
from diffcorr.data.partworld import PartWorldPairs, PartWorldSegmentation
from diffcorr.segmentation.diffseg import DiffSeg

NUM_QUERIES, TURNS = 4, 4


def take_turns(modes: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Median seconds of each mode, interleaved, without the first turn."""
    seconds: dict[str, list[float]] = {name: [] for name in modes}
    for _ in range(TURNS):
        for name, work in modes.items():
            start = time.perf_counter()
            work()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values[1:]) for name, values in seconds.items()}


def bench_fit(config: Any, backbone: Any) -> list[dict[str, Any]]:
    """`plain` fits item by item and encodes every crop anew; `preset` is what ships."""
    method = instantiate(config.method)
    variant = instantiate(config.attention)
    fit: FitConfig = method.keywords["fit"]
    read: TransferConfig = method.keywords["transfer"]
    data = PartWorldPairs("val", num_pairs=1)
    pair = data.pairs[0]
    queries = pair.queries()[:NUM_QUERIES]
    images = {pair.source_id: data.image(pair.source_id)}
    target = data.image(pair.target_id)

    def run(fit: FitConfig, read: TransferConfig) -> None:
        items = [FitItem(q, r) for q in queries for r in range(fit.rounds)]
        fitted = fit_prompts(backbone, items, images, fit, variant).embeddings
        transfer(backbone, target, fitted.unflatten(0, (len(queries), fit.rounds)), read, variant)

    modes = {
        "plain": lambda: run(replace(fit, pack_size=1, bank_size=0), replace(read, batch_size=1)),
        "preset": lambda: run(fit, read),
    }
    seconds = take_turns(modes)
    return [
        {
            "mode": name,
            "backbone": backbone.name,
            "device": str(backbone.device),
            "dtype": str(backbone.dtype),
            "seconds_per_query": value / len(queries),
            "ratio_to_plain": seconds["plain"] / value,
            "num_queries": len(queries),
            "rounds": fit.rounds,
            "steps": fit.steps,
            "num_crops": read.num_crops,
        }
        for name, value in seconds.items()
    ]


def bench_segment(backbone: Any) -> list[dict[str, Any]]:
    """Images a second of DiffSeg, in batches of four."""
    data = PartWorldSegmentation("val", 4)
    images = [data[i]["image"] for i in range(len(data))]
    modes = {mode: DiffSeg(mode=mode) for mode in ("reference", "exact")}
    seconds = take_turns({k: lambda m=m: m.segment(images, backbone=backbone) for k, m in modes.items()})
    return [
        {"mode": name, "backbone": backbone.name, "images_per_second": len(images) / value}
        for name, value in seconds.items()
    ]


def main() -> None:
    config = compose("eval", sys.argv[1:])
    backbone = instantiate(config.backbone)
    folder = Path("outputs/bench")
    folder.mkdir(parents=True, exist_ok=True)
    about = run_metadata(config.seed)
    for name, records in {"fit": bench_fit(config, backbone), "segment": bench_segment(backbone)}.items():
        text = json.dumps({"about": about, "records": records}, indent=2)
        (folder / f"{name}.json").write_text(text + "\n")
        print(f"{folder}/{name}.json\n{json.dumps(records, indent=2)}")


if __name__ == "__main__":
    main()
