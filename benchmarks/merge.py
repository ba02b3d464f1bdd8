"""Seconds and bytes of aggregation and merging at full size: ``python -m benchmarks.merge``.

No model: random maps of the shapes that Stable Diffusion 1.5 gives for one image of 512 x 512. Merging is
measured against the loop of the paper, anchor by anchor and element by element, in the same run. Writes
``outputs/bench/merge.json``.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import torch
from torch import Tensor

from benchmarks.measure import peak_memory
from benchmarks.run import save
from diffcorr.attention.base import AttentionRead
from diffcorr.config import run_metadata
from diffcorr.segmentation.aggregate import aggregate
from diffcorr.segmentation.merge import anchor_grid, merge, present
from diffcorr.segmentation.proposals import suppress
from diffcorr.segmentation.reader import LayerSum

LAYERS = {64: (5, 40), 32: (5, 80), 16: (5, 160), 8: (1, 160)}
"""side -> (layers, width of a head) of SD 1.x at 512 x 512, 8 heads each."""
NUM_HEADS, ANCHORS, ITERATIONS, TURNS = 8, 16, 3, 3
TAUS = {"all separate": 1e-3, "paper": 0.9}


def attention(side: int, width: int, seed: int) -> AttentionRead:
    """Queries and keys of a layer whose maps follow a coarse pattern, as those of a picture do."""
    generator = torch.Generator().manual_seed(seed)
    pattern = torch.randn(1, width, 4, 4, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.interpolate(pattern, (side, side), mode="bilinear").flatten(2).mT
    noise = torch.randn(1, NUM_HEADS, side * side, width, generator=generator)
    query = 1.5 * smooth[:, None] + 0.5 * noise
    return AttentionRead(query, query, width**-0.5, "self")


def aggregated(sides: dict[int, tuple[int, int]] = LAYERS) -> Tensor:
    """The graph (1, hw, hw) of all layers, as a reader makes it."""
    total = LayerSum()
    sums: dict[tuple[int, int], Tensor] = {}
    for side, (num_layers, width) in sides.items():
        for layer in range(num_layers):
            sums[side, side] = total(attention(side, width, 100 * side + layer))
        sums[side, side] /= num_layers
    return aggregate(sums)


def literal_merge(maps: Tensor, anchors: Tensor, tau: float) -> Tensor:
    """The paper's algorithm in its own steps, (hw, hw) -> (K, hw): one anchor at a time, nothing shared."""

    def distance(p: Tensor, others: Tensor) -> Tensor:
        ratio = p.log() - others.log()
        return ((p * ratio).sum(1) - (others * ratio).sum(1)) / 2

    proposals = torch.stack([maps[distance(maps[a], maps) < tau].mean(0) for a in anchors])
    for _ in range(ITERATIONS - 1):
        merged, taken = [], torch.zeros(len(proposals), dtype=torch.bool)
        for i, start in enumerate(proposals):
            if not taken[i]:
                close = distance(start, proposals) < tau
                close[i] = True
                taken |= close
                merged.append(proposals[close].mean(0))
        proposals = torch.stack(merged)
    return proposals


def bench_merge(sides: dict[int, tuple[int, int]] = LAYERS, anchors: int = ANCHORS) -> list[dict[str, Any]]:
    """A record of all steps with their memory, and one for each threshold with the literal loop's time."""
    side = max(sides)
    grid, size = (side, side), (8 * side, 8 * side)
    shape = {"num_maps": side * side, "num_anchors": anchors**2, "threads": torch.get_num_threads()}
    places = anchor_grid(grid, anchors)
    # memory first: later steps would find what earlier ones have given back
    with peak_memory() as peak:
        start = time.perf_counter()
        graph = aggregated(sides)
        seconds = time.perf_counter() - start
        suppress(merge(graph, places, TAUS["paper"], iterations=ITERATIONS), grid, size)
    records: list[dict[str, Any]] = [
        {
            "step": "aggregate",
            "seconds": seconds,
            "peak_memory_bytes_with_merge_and_suppress": peak[0],
            **shape,
        }
    ]
    for name, tau in TAUS.items():
        times = []
        for _ in range(TURNS):
            start = time.perf_counter()
            proposals = merge(graph, places, tau, iterations=ITERATIONS)
            merged = time.perf_counter()
            suppress(proposals, grid, size)
            times.append((merged - start, time.perf_counter() - merged))
        start = time.perf_counter()
        expected = literal_merge(graph[0], places, tau)
        literal = time.perf_counter() - start
        found = proposals[0][present(proposals)[0]]
        alike = len(found) == len(expected)
        seconds, suppressing = (sorted(column)[TURNS // 2] for column in zip(*times, strict=True))
        records.append(
            {
                "step": f"merge, {name}",
                "tau": tau,
                "seconds": seconds,
                "seconds_suppress": suppressing,
                "seconds_literal": literal,
                "ratio_to_literal": literal / seconds,
                "num_proposals": len(found),
                "largest_relative_difference": float(((found - expected).abs() / expected).max())
                if alike
                else None,
                **shape,
            }
        )
    return records


def main(arguments: list[str]) -> None:
    """Run at the shapes of Stable Diffusion 1.5."""
    if arguments:
        sys.exit(f"error: expected no arguments, found {' '.join(arguments)}")
    save("merge", run_metadata(0), bench_merge())


if __name__ == "__main__":
    main(sys.argv[1:])
