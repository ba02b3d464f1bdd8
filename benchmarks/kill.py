"""Kill real runs at random moments, start the same command again, and compare what is left in the end.

    python -m benchmarks.kill                     # 30 moments; writes outputs/kill/kill.json
    python -m benchmarks.kill --moments 5 --processes 2 --task segmentation

A run is killed (SIGKILL) again and again until it is through; then its results have to be those of a run
that nobody disturbed, to the last bit. Of several processes a random one is killed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from safetensors import safe_open

from diffcorr.stores.predictions import once, read_predictions

COMMON = ("trainer=ddp", "trainer.accelerator=cpu", "+trainer.enable_progress_bar=false")
FEW = ("num_figures=1", "num_heatmaps=1", "report=false", "data.num_pairs=6")
FAST = ("method.fit.steps=4", "method.fit.pack_size=8", "method.transfer.num_crops=4")
TASKS = {
    "correspondence": (*FEW, *FAST, "baselines=[dift,chance]"),
    "segmentation": ("task=segmentation", "data.num_images=10", "batch_size=2", "num_figures=1"),
}


class Started(Protocol):
    """A process that runs."""

    pid: int | None

    def wait(self, timeout: float) -> int | None:
        """Its exit status, None where it still runs after so many seconds."""


class Command:
    """A run of an entry point in a group of processes of its own."""

    def __init__(self, arguments: list[str], log: Path) -> None:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a") as file:
            self.process = subprocess.Popen(arguments, stdout=file, stderr=file, start_new_session=True)
        self.pid = self.process.pid

    def wait(self, timeout: float) -> int | None:
        """See `Started`."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            return None


def results(folder: Path) -> dict[str, Any]:
    """What a run leaves: scores, points, masks and embeddings, in an order of their own."""
    found: dict[str, Any] = {}
    for path in (folder / "run").glob("*.json"):
        if path.name in ("metrics.json", "comparisons.json"):
            rows = json.loads(path.read_text())
            found[path.name] = sorted(json.dumps(row, sort_keys=True) for row in rows)
    if list((folder / "run").glob("predictions/*")):
        rows = once(read_predictions(folder / "run" / "predictions")).to_pylist()
        found["predictions"] = sorted(json.dumps(row, sort_keys=True) for row in rows)
    for path in (folder / "run" / "masks").rglob("*.png"):
        found[str(path.relative_to(folder))] = path.read_bytes()
    for path in sorted((folder / "embeddings").rglob("embeddings-*.safetensors")):
        with safe_open(path, "pt") as shard:
            items = json.loads(shard.metadata()["items"])
            for item, row in zip(items, shard.get_tensor("embeddings"), strict=True):
                found.setdefault(f"embedding {item}", row.numpy().tobytes())
    return found


def kill_again_and_again(
    start: Callable[[Path], Started],
    victim: Callable[[Started], int | None],
    folder: Path,
    moments: int,
    rng: random.Random,
    say: Callable[[str], object],
) -> dict[str, Any]:
    """Kill runs at random moments of their life and see that their results are those of one left alone.

    Args:
        start: starts the run that leaves its results in a folder, or goes on with it.
        victim: whom to kill, by process id.
        folder: for results.
        moments: how many kills.
        rng: for the moments.
        say: told what happens.

    Returns:
        Seconds of the undisturbed run, the moments, and how many runs were completed.

    Raises:
        RuntimeError: a run failed by itself, or its results differ.
    """
    begun = time.monotonic()
    alone = folder / "alone"
    run, status, startup = start(alone), None, 0.0
    while status is None:
        status = run.wait(0.05)
        if not (alone / "run").exists():  # imports, where there is nothing to lose yet
            startup = time.monotonic() - begun
    if status != 0:
        raise RuntimeError(f"the undisturbed run ended with {status}, see {alone}")
    length = time.monotonic() - begun
    expected = results(alone)
    killed: list[float] = []
    completed = 0
    while True:
        disturbed = folder / f"disturbed{completed}"
        run = start(disturbed)
        moment = rng.uniform(0.8 * startup, length) if len(killed) < moments else 600.0
        status = run.wait(moment)
        if status is None and len(killed) < moments:
            if (pid := victim(run)) is not None:
                os.kill(pid, signal.SIGKILL)
            run.wait(60)
            killed.append(round(moment, 2))
            say(f"{len(killed)} of {moments}: killed after {moment:.1f} s")
            continue
        if status != 0:
            raise RuntimeError(f"expected a run that goes on, found it ended with {status}, see {disturbed}")
        found = results(disturbed)
        if different := [key for key in {**expected, **found} if expected.get(key) != found.get(key)]:
            raise RuntimeError(
                f"expected the results of {alone}, found others in {disturbed}: {different[:5]}"
            )
        completed += 1
        say(f"a run is through after {len(killed)} kills, {len(found)} results as expected")
        if len(killed) >= moments:
            return {"seconds_undisturbed": round(length, 1), "killed_after": killed, "completed": completed}


def main() -> None:
    """Kill runs of each task."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--moments", type=int, default=30, help="kills in all")
    parser.add_argument(
        "--processes", type=int, default=2, help="of each run; of several a random one is killed"
    )
    parser.add_argument("--task", choices=TASKS, action="append", help="default: all in turn")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("outputs/kill"))
    chosen = parser.parse_args()
    if chosen.moments < 1 or chosen.processes < 1:
        parser.error("expected at least one moment and one process")
    rng = random.Random(chosen.seed)
    tasks = chosen.task or list(TASKS)
    report: dict[str, Any] = {"processes": chosen.processes, "seed": chosen.seed, "tasks": {}}
    for number, task in enumerate(tasks):
        share = len(range(number, chosen.moments, len(tasks)))
        folder = chosen.folder / task
        shutil.rmtree(folder, ignore_errors=True)

        def start(to: Path, task: str = task) -> Command:
            where = [f"output_dir={to / 'run'}"]
            where += [f"embeddings_root={to / 'embeddings'}"] if task == "correspondence" else []
            devices = f"trainer.devices={chosen.processes}"
            arguments = [sys.executable, "eval.py", *COMMON, devices, *TASKS[task], *where]
            return Command(arguments, to / "log.txt")

        def victim(run: Started) -> int | None:
            return rng.choice(_group(run.pid))

        if share:
            print(f"{task}: {share} kills", flush=True)
            report["tasks"][task] = kill_again_and_again(
                start, victim, folder, share, rng, lambda line: print(line, flush=True)
            )
    (chosen.folder / "kill.json").write_text(json.dumps(report, indent=1) + "\n")


def _group(leader: int | None) -> list[int]:
    """The living processes of a session."""
    found = subprocess.run(
        ["ps", "-o", "pid=", "-s", str(leader)], capture_output=True, text=True
    ).stdout.split()
    return [int(pid) for pid in found] or [int(leader or 0)]


if __name__ == "__main__":
    main()
