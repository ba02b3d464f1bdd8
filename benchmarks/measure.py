"""Seconds, FLOPs and bytes of a piece of work."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch

from diffcorr.correspondence.flops import counted

Work = Callable[[], object]


@dataclass
class Measured:
    """What one piece of work took, turn by turn; the first turn warms up, and its FLOPs are counted."""

    seconds: list[float] = field(default_factory=list)
    flops: int = 0
    peak_memory_bytes: int | None = None

    @property
    def median(self) -> float:
        """Median seconds of a turn."""
        return statistics.median(self.seconds)


def take_turns(works: dict[str, Work], turns: int = 3) -> dict[str, Measured]:
    """Measure pieces of work in turn, so that a machine that slows down slows all of them."""
    measured = {name: Measured() for name in works}
    for name, work in works.items():
        with counted() as counter:
            work()
        measured[name].flops = counter.get_total_flops()
    for _ in range(turns):
        for name, work in works.items():
            with peak_memory() as peak:
                start = time.perf_counter()
                work()
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
                measured[name].seconds.append(time.perf_counter() - start)
            measured[name].peak_memory_bytes = max(measured[name].peak_memory_bytes or 0, *peak) or None
    return measured


@contextmanager
def peak_memory() -> Iterator[list[int]]:
    """Appends the most bytes that were in use within the block.

    On CUDA all that is allocated, weights included; on a CPU what the process grew by, sampled.
    """
    found: list[int] = []
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
        yield found
        found.append(torch.cuda.max_memory_allocated())
        return
    status = Path("/proc/self/statm")
    if not status.exists():
        yield found
        found.append(0)
        return

    def resident() -> int:
        return int(status.read_text().split()[1]) * 4096

    base, most, done = resident(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            most[0] = max(most[0], resident() - base)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    yield found
    done.set()
    watcher.join()
    found.append(most[0])


def matmul_ceiling(device: torch.device, dtype: torch.dtype) -> float:
    """FLOPs a second of the best of several large matrix products."""
    side = 8192 if device.type == "cuda" else 1024
    a = torch.randn(side, side, device=device).to(dtype)
    best = float("inf")
    for _ in range(10):
        start = time.perf_counter()
        a @ a
        if device.type == "cuda":
            torch.cuda.synchronize()
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best
