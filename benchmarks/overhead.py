"""What the framework takes beside the work itself: ``python -m benchmarks.overhead [OVERRIDES]``.

Fits the same prompts by the bare loop (`fit_prompts`: no trainer, no files) and as a run does it (Lightning's
trainer, CSV logger, store, run folder, summary), in turn. Part of ``make bench``; writes
``outputs/bench/overhead.json``.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from statistics import median
from typing import Any

from omegaconf import DictConfig

from benchmarks.measure import take_turns
from benchmarks.run import save
from diffcorr.config import compose, instantiate, run_metadata
from diffcorr.correspondence import PromptFit, build_method, fit_prompts
from diffcorr.runs.common import ImagesById, Run
from diffcorr.runs.correspondence import fit_missing, load_pairs, with_store

FOLDER = Path("outputs/bench/overhead")
DEFAULT = ["data.split=val", "data.num_pairs=8", "logger=csv", "+trainer.enable_progress_bar=false"]


def bench_overhead(config: DictConfig, turns: int = 5) -> dict[str, Any]:
    """Seconds of both, medians of ``turns``, and the framework's share over the bare loop."""
    data, backbone = load_pairs(config), instantiate(config.backbone)
    queries = [query for pair in data.pairs for query in pair.queries()]
    images = ImagesById(data)

    def method() -> PromptFit:
        built = build_method(instantiate(config.method), backbone, instantiate(config.attention))
        assert isinstance(built, PromptFit)
        return built

    def bare() -> None:
        own = method()
        fit_prompts(backbone, own.prompts(queries), images, own.fit_config, own.variant)

    def framework() -> None:
        shutil.rmtree(FOLDER, ignore_errors=True)
        with Run(config) as run:
            fit_missing(run, with_store(method(), config), data)

    measured = take_turns({"bare": bare, "framework": framework}, turns)
    turned = zip(measured["framework"].seconds, measured["bare"].seconds, strict=True)
    shares = [round(whole / alone - 1, 4) for whole, alone in turned]
    return {
        "backbone": backbone.name,
        "device": str(backbone.device),
        "num_prompts": len(method().prompts(queries)),
        "steps": method().fit_config.steps,
        "seconds_bare": measured["bare"].median,
        "seconds_framework": measured["framework"].median,
        "overhead": median(shares),
        "overhead_by_turn": shares,
    }


def main(arguments: list[str]) -> None:
    """Run what the command line asks for."""
    fixed = [f"output_dir={FOLDER}", f"embeddings_root={FOLDER}/embeddings"]
    config = compose("eval", [*DEFAULT, *fixed, *arguments])
    save("overhead", {**run_metadata(config.seed), "arguments": arguments}, [bench_overhead(config)])


if __name__ == "__main__":
    main(sys.argv[1:])
