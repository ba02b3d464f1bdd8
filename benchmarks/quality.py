"""What the fast modes cost in PCK: ``python -m benchmarks.quality [OVERRIDES] [modes=exact,packed]``.

Every mode fits and finds the same pairs of PartWorld's test list with five seeds; the difference of its mean
PCK to that of `exact` comes with the 95 % interval of a bootstrap over pairs. Writes ``outputs/fast_modes/``
and there ``fast_modes.json``. A run that was cut off goes on where it stopped.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from omegaconf import OmegaConf, open_dict

from benchmarks.modes import MODES, changed
from diffcorr.config import compose, instantiate, run_metadata
from diffcorr.metrics import PCK, compare_points, score_points
from diffcorr.runs.correspondence import evaluate_correspondence, load_pairs
from diffcorr.stores.predictions import PredictionStore

FOLDER = Path("outputs/fast_modes")
METRIC = "pck@0.10"
SEEDS = [0, 1, 2, 3, 4]


def main(arguments: list[str]) -> None:
    """Run what the command line asks for."""
    chosen = [a.removeprefix("modes=").split(",") for a in arguments if a.startswith("modes=")]
    modes = chosen[-1] if chosen else [m for m in MODES if m not in ("plain", "exact_fp32")]
    fixed = [
        "baselines=[]",
        "report=false",
        "num_figures=0",
        "num_heatmaps=0",
        "trainer.precision=bf16-mixed",
    ]
    fixed += [a for a in arguments if not a.startswith("modes=")]
    scores: dict[str, list[PCK]] = {}
    for name in modes:
        config = compose("eval", [*fixed, f"output_dir={FOLDER / name}", f"seeds={SEEDS}"])
        node = changed(config.method, MODES[name])
        with open_dict(config):
            config.method = OmegaConf.create(OmegaConf.to_container(node, resolve=False))
        evaluate_correspondence(config)
        data, protocol = load_pairs(config), instantiate(config.protocol)
        store = PredictionStore(FOLDER / name / "predictions")
        scores[name] = [
            score_points(store.predictions(config.method.name, seed), data.pairs, protocol) for seed in SEEDS
        ]
    num_queries = len({query.id for pair in data.pairs for query in pair.queries()})
    records: list[dict[str, Any]] = []
    for name, score in scores.items():
        values = [100 * float(one.compute()[METRIC]) for one in score]
        record = {"mode": name, "pck": round(mean(values), 2), "pck_std": round(stdev(values), 2)}
        if name != "exact" and "exact" in scores:
            interval = compare_points(score, scores["exact"], METRIC).times(100)
            record["difference"] = round(interval.difference, 2)
            record["interval95"] = [round(interval.low, 2), round(interval.high, 2)]
        record |= {"metric": METRIC, "protocol": protocol.name, "num_queries": num_queries, "seeds": SEEDS}
        records.append(record | {"num_pairs": len(data.pairs)})
    about = {**run_metadata(config.seed), "arguments": arguments}
    (FOLDER / "fast_modes.json").write_text(json.dumps({"about": about, "records": records}, indent=2) + "\n")
    print(json.dumps(records, indent=2))


if __name__ == "__main__":
    main(sys.argv[1:])
