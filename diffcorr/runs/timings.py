"""How long the stages of a run took: ``timings.json`` of its folder."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from diffcorr.errors import StoreError
from diffcorr.stores.files import write_atomic


@dataclass(frozen=True)
class Timing:
    """One stage of one session; a run that was interrupted has several.

    Attributes:
        stage: ``fit`` or ``predict``.
        method: name of the method.
        seed: its seed.
        key: identity of what was made, the same in every run that re-uses it.
        items: prompts, pairs or images that were made in this session.
        total: how many the run needs; the others were stored before.
        seconds: of the wall, start of the trainer included.
        cpu_seconds: of all cores by the main process: what a CPU's work is measured by where others work too.
    """

    stage: str
    method: str
    seed: int
    key: str
    items: int
    total: int
    seconds: float
    cpu_seconds: float


def add_timing(folder: Path, row: Timing) -> None:
    """Add a stage to ``timings.json``.

    One that found everything stored adds itself once, with no items, so that its ``key`` is known.
    """
    known = read_timings(folder)
    if row.items or not any((one.stage, one.key) == (row.stage, row.key) for one in known):
        text = "[\n" + ",\n".join(json.dumps(asdict(one)) for one in (*known, row)) + "\n]\n"
        write_atomic(folder / "timings.json", lambda to: to.write_text(text, encoding="utf-8"))


def read_timings(folder: Path) -> list[Timing]:
    """What a run folder tells of its stages, in their order; nothing of an older run.

    Raises:
        StoreError: the file is damaged.
    """
    path = folder / "timings.json"
    if not path.exists():
        return []
    try:
        return [Timing(**row) for row in json.loads(path.read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError) as error:
        raise StoreError(f"expected the timings of a run in {str(path)!r}, found none: delete it") from error
