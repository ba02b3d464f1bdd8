"""What eval.py does: one task, its report, and a summary on the screen."""

from __future__ import annotations

import logging
from pathlib import Path

from omegaconf import DictConfig

from diffcorr.errors import UnknownNameError
from diffcorr.processes import in_main_process
from diffcorr.reports import draw_bars, results_table, save_figure
from diffcorr.runs.common import write_text
from diffcorr.runs.correspondence import evaluate_correspondence
from diffcorr.runs.diagnosis import evaluate_diagnosis
from diffcorr.runs.propagation import evaluate_propagation
from diffcorr.runs.samples import draw_samples
from diffcorr.runs.segmentation import evaluate_segmentation
from diffcorr.stores.records import read_records

log = logging.getLogger(__name__)
TASKS = {
    "correspondence": evaluate_correspondence,
    "segmentation": evaluate_segmentation,
    "propagation": evaluate_propagation,
    "diagnosis": evaluate_diagnosis,
    "samples": draw_samples,
}


def evaluate(config: DictConfig) -> None:
    """Run the configured task and write ``report.md`` and a bar chart of all scores of the folder."""
    if config.task not in TASKS:
        raise UnknownNameError("task of eval.py", config.task, TASKS)
    TASKS[config.task](config)
    if not in_main_process():
        return
    folder = Path(config.output_dir)
    path = folder / "metrics.json"
    if not path.exists():
        return
    overall = [r for r in read_records(path) if "group" not in r.extra]
    table = results_table(overall)
    write_text(folder / "report.md", table)
    save_figure(draw_bars(overall), folder / "figures" / "scores.png")
    log.info("results in %s\n%s", folder, table)
