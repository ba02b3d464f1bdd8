"""``diffcorr report ablation``: the runs of a sweep on one page, with figures and a table for machines."""

from __future__ import annotations

import csv
import io
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

import diffcorr
from diffcorr.errors import DiffcorrError
from diffcorr.reports.page import write_page
from diffcorr.runs.ablation_page import AblationPage
from diffcorr.runs.ablation_runs import Sweep, find_runs, say
from diffcorr.runs.ablation_scores import Ablation
from diffcorr.stores.files import write_atomic

log = logging.getLogger(__name__)
ABOUT = (
    "method.name",
    "backbone.name",
    "data._target_",
    "data.split",
    "seed",
    "trainer.precision",
    "git.commit",
)
"""What ``ablation.json`` tells of the runs: of each all values that occur."""


def report_ablation(
    folders: Sequence[str | Path],
    out: str | Path | None = None,
    *,
    keys: Sequence[str] | None = None,
    flops: bool = True,
    **choices: Any,
) -> list[Path]:
    """Write the report of a sweep.

    Args:
        folders: what ``eval.py -m`` filled, or single runs; runs may still be going on.
        out: receives ``report.md``, ``report.html``, ``figures``, ``ablation.csv`` and ``ablation.json``;
            by default ``report`` in the first folder.
        keys: the swept keys; by default found, see `Sweep`.
        flops: whether to count FLOPs, for which the model is built.
        choices: see `Ablation`.

    Returns:
        What was written.

    Raises:
        DataError: there are no runs, or not of one task.
        StoreError: what a run left cannot be read, or the folder not be written.
        UnknownNameError: no such key, protocol or metric.
    """
    sweep = Sweep(find_runs(folders), keys)
    page = AblationPage(Ablation(sweep, **choices), flops)
    to = Path(out) if out else Path(folders[0]) / "report"
    names = ", ".join(page.short.values()) or "one setting"
    written = write_page(f"Ablation: {names}", list(page.blocks()), to)
    rows = page.rows()
    about = {
        "diffcorr": diffcorr.__version__,
        "keys": sweep.keys,
        "metric": page.ablation.metric,
        "protocol": page.ablation.protocol,
        "about": {name: _values(sweep, name) for name in ABOUT},
        "settings": rows,
    }
    table = io.StringIO()
    writer = csv.DictWriter(table, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    for name, text in (("csv", table.getvalue()), ("json", json.dumps(about, indent=1) + "\n")):
        path = to / f"ablation.{name}"
        write_atomic(path, lambda at, text=text: at.write_text(text, encoding="utf-8"))  # type: ignore[misc]
        written.append(path)
    return written


def _values(sweep: Sweep, name: str) -> list[str]:
    return sorted({say(run.config.get(name, run.about.get(name))) for run in sweep.runs})


class ReportAblation(Callback):
    """Hydra's callback that ends a sweep in its report; ``hydra.callbacks`` of ``experiment=ablate*``."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Report what the sweep's folder holds; a sweep of ``train.py`` has nothing to report."""
        try:
            written = report_ablation([config.hydra.sweep.dir])
        except DiffcorrError as error:
            log.warning("no report of this sweep: %s", error)
        else:
            log.info("report of the sweep: %s", written[0])
