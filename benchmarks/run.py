"""Speed of every mode: ``python -m benchmarks.run [OVERRIDES] [modes=plain,exact]``.

Overrides are those of eval.py, such as ``backbone=sd15 backbone.weights=random backbone.device=cuda
method=prompt_fit_paper``. Writes ``outputs/bench/fit.json`` and ``outputs/bench/segment.json``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.fit import bench_fit
from benchmarks.modes import MODES
from benchmarks.segment import bench_segment
from diffcorr.config import compose, run_metadata


def save(name: str, about: dict[str, Any], records: list[dict[str, Any]]) -> None:
    """Write and show the records of one benchmark."""
    path = Path("outputs/bench") / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"about": about, "records": records}, indent=2) + "\n")
    print(path)
    for r in records:
        shown = {k: f"{v:.3g}" if isinstance(v, float) else v for k, v in r.items()}
        print("  " + ", ".join(f"{k} {v}" for k, v in shown.items()))


def main(arguments: list[str]) -> None:
    """Run what the command line asks for."""
    chosen = [a.removeprefix("modes=").split(",") for a in arguments if a.startswith("modes=")]
    modes = chosen[-1] if chosen else list(MODES)
    config = compose("eval", [a for a in arguments if not a.startswith("modes=")])
    about = {**run_metadata(config.seed), "arguments": arguments}
    save("fit", about, bench_fit(config, modes))
    save("segment", about, bench_segment(config))


if __name__ == "__main__":
    main(sys.argv[1:])
