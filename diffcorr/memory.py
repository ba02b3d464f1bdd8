"""How much a device can do at once, and what to do when that was too much."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import torch

from diffcorr.errors import DiffcorrError

log = logging.getLogger(__name__)
T = TypeVar("T")

CPU_BATCH = 32  # more gain nothing on a CPU
MOST = 256
CPU_ROOM = 1 << 30  # bytes of results on a CPU


class Batches:
    """Runs work on consecutive slices; where memory runs out, on smaller ones, and never loses a slice.

    Args:
        size: items of a slice.

    Attributes:
        size: as it is now; it only falls.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def map(self, count: int, work: Callable[[slice], T]) -> list[T]:
        """Results of ``work(slice)`` over 0..count.

        ``work`` is repeated with a smaller slice where it ran out of memory, so that it must leave
        nothing behind before it is done.

        Raises:
            DiffcorrError: one single item is too much.
        """
        results: list[T] = []
        start = 0
        while start < count:
            stop = min(start + self.size, count)
            try:
                results.append(work(slice(start, stop)))
            except torch.OutOfMemoryError:
                if stop - start == 1:
                    raise DiffcorrError(
                        "expected room for a single item in the device's memory, found none: "
                        "use dtype=bfloat16, a smaller image or another device"
                    ) from None
                self.size = -(-(stop - start) // 2)
            else:
                start = stop
                continue
            # outside of the except block, which keeps the tensors of the failed pass alive
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            log.warning("out of memory: going on with %d items at once", self.size)
        return results


def kept_at_once(device: torch.device, size: int) -> int:
    """How many results of ``size`` bytes a device holds at once: an eighth of what is free, at least one."""
    room = torch.cuda.mem_get_info(device)[0] // 8 if device.type == "cuda" else CPU_ROOM
    return max(1, room // max(1, size))


def fitting_size(device: torch.device, run: Callable[[int], object], most: int = MOST) -> int:
    """How many items fit into the device's free memory; on a CPU, what is quick.

    Args:
        device: where ``run`` works.
        run: does the work of that many items; called with 1, 2 and 4.
        most: beyond which nothing is gained.
    """
    if device.type != "cuda":
        return min(CPU_BATCH, most)
    try:
        run(1)  # libraries take their work space on first use
        base = torch.cuda.memory_allocated(device)
        peaks = []
        for count in (2, 4):
            torch.cuda.reset_peak_memory_stats(device)
            run(count)
            peaks.append(torch.cuda.max_memory_allocated(device) - base)
    except torch.OutOfMemoryError:
        return 1
    each = max((peaks[1] - peaks[0]) / 2, 1.0)
    fixed = max(peaks[0] - 2 * each, 0.0)
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    free = 0.85 * (torch.cuda.mem_get_info(device)[0] + unused)
    return int(min(max((free - fixed) // each, 1), most))
