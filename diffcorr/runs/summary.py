"""What a run did, on one page: what, how long, how many, re-used, failed, where."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Stage:
    """One piece of work that is shared out among the processes of a run.

    Attributes:
        name: what is done, by which method.
        asked: items.
        reused: those of them that were stored already.
        failed: those that cannot be done, see ``failures.jsonl``.
        seconds: until the last process was done.
        idle: seconds that each process waited at the end for the last one.
        finished: False where the run stopped before.
    """

    name: str
    asked: int
    reused: int
    failed: int = 0
    seconds: float = 0.0
    idle: Sequence[float] = (0.0,)
    finished: bool = False

    @property
    def done(self) -> int:
        """Items of this run."""
        return self.asked - self.reused - self.failed if self.finished else 0


def summary(
    title: str, folder: Path, seconds: float, processes: int, stages: Sequence[Stage], error: str | None
) -> str:
    """Markdown, one page.

    Args:
        title: task and what it was run on.
        folder: of the run.
        seconds: since its start.
        processes: how many.
        stages: in their order.
        error: why it stopped; None where it is complete.
    """
    machine = f"{platform.system()} {platform.machine()}"
    failed = sum(stage.failed for stage in stages)
    state = "complete" if error is None else f"stopped ({error}); the same command goes on where it stopped"
    lines = [
        f"# {title}",
        "",
        f"- state: {state}",
        f"- folder: {folder}",
        f"- time: {duration(seconds)}, {processes} process{'es' if processes > 1 else ''} on {machine}",
        f"- failed: {failed} items" + (", each with its reason in failures.jsonl" if failed else ""),
        "",
        "| work | asked | re-used | done | failed | time | a second | idle at the end |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for stage in stages:
        rate = f"{stage.done / stage.seconds:.3g}" if stage.done and stage.seconds else "-"
        busy = stage.seconds * len(stage.idle)
        idle = f"{100 * sum(stage.idle) / busy:.0f} %" if busy and len(stage.idle) > 1 else "-"
        done = str(stage.done) if stage.finished else "stopped"
        lines.append(
            f"| {stage.name} | {stage.asked} | {stage.reused} | {done} | {stage.failed} | "
            f"{duration(stage.seconds)} | {rate} | {idle} |"
        )
    return "\n".join(lines) + "\n"


def duration(seconds: float) -> str:
    """As 4.2 s, 3 min 20 s or 2 h 05 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"
