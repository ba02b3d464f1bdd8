"""Seconds to score a stored benchmark under every preset: ``python -m benchmarks.score [NUM_PAIRS]``.

As many pairs as SPair-71k's test split (12,234) with ten keypoints each, drawn at random, in a store on disk.
Prints one JSON object; the steps are what ``diffcorr score`` and ``diffcorr report`` go through.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

from diffcorr.config import run_metadata
from diffcorr.metrics import (
    POINT_PROTOCOLS,
    compare_points,
    match_table,
    pair_columns,
    score_matched,
    score_points,
)
from diffcorr.runs.chapter import read_chapter
from diffcorr.runs.report import write_report
from diffcorr.runs.score import score_stored
from diffcorr.runs.stored import StoredRun
from diffcorr.stores.predictions import PredictionStore, read_predictions
from diffcorr.types import Pair, PointPrediction

NUM_PAIRS, NUM_POINTS, NUM_CATEGORIES = 12_234, 10, 18
KEYPOINTS = tuple(str(number) for number in range(NUM_POINTS))


@dataclass
class DrawnPairs:
    """Pairs without pictures."""

    num_pairs: int
    name: str = "drawn"
    split: str = "test"
    pairs: list[Pair] = field(default_factory=list)

    def __post_init__(self) -> None:
        rng = random.Random(0)
        for number in range(self.num_pairs):
            sizes = [(rng.randint(200, 500), rng.randint(200, 500)) for _ in range(2)]
            points = [tuple((rng.random() * w, rng.random() * h) for _ in KEYPOINTS) for w, h in sizes]
            boxes = [(0.1 * w, 0.1 * h, 0.8 * w, 0.9 * h) for w, h in sizes]
            category = f"category{number % NUM_CATEGORIES}"
            ids = (f"{number}-a-b:{category}", "drawn", category, "a", "b")
            self.pairs.append(Pair(*ids, KEYPOINTS, *points, *boxes, *sizes))

    def image(self, image_id: str) -> None:
        raise NotImplementedError("no picture is needed to score")


def predictions(pairs: list[Pair], spread: float) -> list[PointPrediction]:
    rng = random.Random(spread)
    return [
        PointPrediction(pair.pair_id, name, "q", x + rng.gauss(0, spread), y + rng.gauss(0, spread), 0.5)
        for pair in pairs
        for name, (x, y) in zip(pair.keypoints, pair.target_points, strict=True)
    ]


def main(arguments: list[str]) -> None:
    """Draw, store, then time every step."""
    data = DrawnPairs(int(arguments[0]) if arguments else NUM_PAIRS)
    protocols = list(POINT_PROTOCOLS.values())
    seconds: dict[str, float] = {}

    cpu: dict[str, float] = {}

    def timed(name, work):
        start, start_cpu = time.perf_counter(), time.process_time()
        result = work()
        seconds[name] = round(time.perf_counter() - start, 2)
        cpu[name] = round(time.process_time() - start_cpu, 2)
        return result

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        points = predictions(data.pairs, 20.0)
        with PredictionStore(folder, rows_per_shard=512) as store:
            for start in range(0, len(points), 512):
                store.add("near", 0, points[start : start + 512], "abc")
        seconds["shards"] = len(list(folder.glob("*.parquet")))
        timed("all presets, end to end", lambda: score_stored(folder, data, protocols))
        table = timed("of these: read", lambda: read_predictions(folder, ("pair_id", "keypoint", "x", "y")))
        columns = timed("of these: columns of the pairs", lambda: pair_columns(data.pairs))
        matched = timed("of these: match", lambda: match_table(columns, table))
        scores = timed("of these: score", lambda: [score_matched(matched, p).compute() for p in protocols])
        timed("score_points from objects, standard", lambda: score_points(points, data.pairs))
        far = score_points(predictions(data.pairs, 25.0), data.pairs, "per_category")
        near = score_points(points, data.pairs, "per_category")
        timed("interval of a difference, per_category, 10,000 resamples", lambda: compare_points(near, far))
        chapter = timed(
            "report: methods x presets", lambda: read_chapter([StoredRun(folder)], data, protocols)
        )
        timed("report: all intervals, 10,000 resamples", chapter.to_dict)
        timed("report: pages, without pairs", lambda: write_report([chapter], folder / "report", 0))
    assert len(scores) == len(protocols)
    about = {key: value for key, value in run_metadata(0).items() if key in ("cpus", "threads", "platform")}
    sizes = {"pairs": len(data.pairs), "points": len(points), "protocols": len(protocols)}
    print(json.dumps({**about, **sizes, "seconds": seconds, "cpu_seconds": cpu}, indent=2))


if __name__ == "__main__":
    main(sys.argv[1:])
