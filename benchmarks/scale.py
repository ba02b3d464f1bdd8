"""What sharing out work costs: measured on CPU processes, and reckoned for more than this machine has.

    python -m benchmarks.scale                    # writes outputs/bench/scale.json
    python -m benchmarks.scale --sizes 1 2 4 8

Items only wait, so that the processors of this machine do not enter: what is left over is the hand-out, the
store, which gets 12 points of every item, and the idle time at the end.
"""

from __future__ import annotations

import argparse
import heapq
import json
import multiprocessing
import os
import socket
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from lightning.fabric.utilities.rank_zero import rank_zero_only

from diffcorr.processes import guided_chunks, launch
from diffcorr.stores.predictions import PredictionStore
from diffcorr.types import PointPrediction

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["diffcorr.processes", "diffcorr.stores.predictions"])
SPREAD = 0.5  # standard deviation of the logarithm of an item's cost


def costs(count: int, mean: float, seed: int = 0) -> list[float]:
    """Costs of items, log-normal."""
    drawn = np.random.default_rng(seed).lognormal(0, SPREAD, count)
    return [float(cost) for cost in mean * drawn / drawn.mean()]


def work(rank: int, size: int, port: int, seconds: Sequence[float], folder: str) -> None:
    """One process: take items, wait as long as they cost, store points."""
    about = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": size, "LOCAL_WORLD_SIZE": size, "GROUP_RANK": 0}
    os.environ |= {key: str(value) for key, value in about.items()}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "bench"}
    rank_zero_only.rank = rank
    trainer = {"accelerator": "cpu", "devices": size} | ({"strategy": "ddp"} if size > 1 else {})
    processes = launch(trainer)
    store = PredictionStore(f"{folder}/predictions")
    processes.wait()
    start, busy, done = time.perf_counter(), 0.0, 0
    for item in processes.share([1.0] * len(seconds)):  # nobody knows the costs beforehand
        time.sleep(seconds[item])
        busy += seconds[item]
        done += 1
        points = [PointPrediction(f"pair{item}", str(k), f"q{k}", 1.0, 2.0, 0.5) for k in range(12)]
        store.add("bench", 0, points, "x")
    store.flush()
    own = time.perf_counter() - start
    idle = processes.wait()
    total = time.perf_counter() - start
    told = processes.gather(json.dumps([busy, own, idle, total, done]).encode())
    if processes.is_main:
        Path(folder, "told.json").write_text(json.dumps([json.loads(one) for one in told]))
    processes.close()


def measure(size: int, seconds: Sequence[float]) -> dict[str, Any]:
    """A run of so many processes."""
    with tempfile.TemporaryDirectory() as folder:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        started = [
            CONTEXT.Process(target=work, args=(rank, size, port, seconds, folder)) for rank in range(size)
        ]
        for process in started:
            process.start()
        for process in started:
            process.join()
        told = np.array(json.loads(Path(folder, "told.json").read_text()))
    busy, own, idle, total, done = told.T
    wall = float(total.max())
    return {
        "processes": size,
        "items": int(done.sum()),
        "seconds": round(wall, 3),
        "efficiency_percent": round(100 * float(busy.sum()) / (size * wall), 1),
        "idle_percent": round(100 * float(idle.sum()) / (size * wall), 1),
        "overhead_ms_an_item": round(1000 * float((own - busy).sum()) / len(seconds), 2),
    }


def reckon(seconds: Sequence[float], size: int, an_item: float) -> dict[str, float]:
    """Efficiency of hand-out as it is done and of every n-th item to a process.

    Args:
        seconds: of each item.
        size: processes.
        an_item: seconds that every item takes beside, for the counter and the store.
    """
    total = sum(seconds)
    static = max(sum(seconds[rank::size]) + an_item * len(seconds[rank::size]) for rank in range(size))
    free = [0.0] * size
    for chunk in guided_chunks([1.0] * len(seconds), size):
        heapq.heappush(free, heapq.heappop(free) + sum(seconds[i] + an_item for i in chunk))
    return {
        "handed_out_percent": round(100 * total / (size * max(free)), 1),
        "every_nth_percent": round(100 * total / (size * static), 1),
    }


def main() -> None:
    """Measure, reckon and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 2, 4, 8, 16], help="numbers of processes")
    parser.add_argument("--items", type=int, default=320, help="in all, or (weak) 20 for each process")
    parser.add_argument("--seconds", type=float, default=0.05, help="mean of an item")
    parser.add_argument("--out", type=Path, default=Path("outputs/bench/scale.json"))
    chosen = parser.parse_args()
    report: dict[str, Any] = {
        "cpus": os.cpu_count(),
        "seconds_an_item": chosen.seconds,
        "strong": [],
        "weak": [],
    }
    for size in chosen.sizes:
        for kind, count in (("strong", chosen.items), ("weak", 20 * size)):
            found = measure(size, costs(count, chosen.seconds))
            report[kind].append(found)
            print(kind, found, flush=True)
    # 12,234 pairs of SPair-71k (about 10 s each on one GPU), and packs of 256 prompts (about 10 minutes each)
    for name, count, mean in (("pairs", 12_234, 10.0), ("packs", 1_000, 600.0)):
        report[f"reckoned_{name}"] = [
            {"processes": size, "items": count} | reckon(costs(count, mean), size, 0.01)
            for size in (1, 8, 16, 32, 64)
        ]
        print(name, report[f"reckoned_{name}"], flush=True)
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
