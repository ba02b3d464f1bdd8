"""Seconds and memory to read an index as large as SPair-71k's: ``python -m benchmarks.index [NUM_PAIRS]``.

Annotations of 12,234 pairs of 1,800 images are drawn at random and written in the true layout; pictures are
not needed. Prints one JSON object.
"""

from __future__ import annotations

import json
import random
import resource
import sys
import tempfile
import time
from pathlib import Path

from diffcorr.config import run_metadata
from diffcorr.data.spair import SPair

NUM_PAIRS, NUM_POINTS, NUM_CATEGORIES, NUM_IMAGES = 12_234, 10, 18, 1_800


def write(root: Path, num_pairs: int) -> None:
    """Annotations and the list of the test split."""
    rng = random.Random(0)
    folder = root / "SPair-71k"
    annotations = folder / "PairAnnotation" / "test"
    for path in (annotations, folder / "Layout" / "large", folder / "JPEGImages"):
        path.mkdir(parents=True)
    names = []
    for number in range(num_pairs):
        category = f"category{number % NUM_CATEGORIES}"
        images = [f"2008_{rng.randrange(NUM_IMAGES // NUM_CATEGORIES):06d}" for _ in range(2)]
        points = [[[rng.randrange(500), rng.randrange(375)] for _ in range(NUM_POINTS)] for _ in images]
        record = {
            "src_imname": f"{images[0]}.jpg",
            "trg_imname": f"{images[1]}.jpg",
            "src_imsize": [500, 375, 3],
            "trg_imsize": [500, 375, 3],
            "src_bndbox": [10, 20, 400, 300],
            "trg_bndbox": [30, 40, 450, 350],
            "category": category,
            "src_kps": points[0],
            "trg_kps": points[1],
            "kps_ids": [str(n) for n in range(NUM_POINTS)],
            **{flag: rng.randrange(3) for flag in ("viewpoint_variation", "scale_variation")},
            **{flag: rng.randrange(4) for flag in ("truncation", "occlusion")},
        }
        names.append(f"{number:06d}-{images[0]}-{images[1]}:{category}")
        (annotations / f"{names[-1]}.json").write_text(json.dumps(record))
    (folder / "Layout" / "large" / "test.txt").write_text("\n".join(names) + "\n")


def main(arguments: list[str]) -> None:
    """Write, then read."""
    num_pairs = int(arguments[0]) if arguments else NUM_PAIRS
    with tempfile.TemporaryDirectory() as name:
        write(Path(name), num_pairs)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        start, cpu = time.perf_counter(), time.process_time()
        data = SPair(Path(name))
        seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    about = {key: value for key, value in run_metadata(0).items() if key in ("cpus", "threads", "platform")}
    found = {"pairs": len(data.pairs), "points": sum(len(pair.keypoints) for pair in data.pairs)}
    took = {"seconds": round(seconds, 2), "cpu_seconds": round(cpu, 2)}
    print(json.dumps({**about, **found, **took, "megabytes_more": round((after - before) / 1024)}, indent=2))


if __name__ == "__main__":
    main(sys.argv[1:])
