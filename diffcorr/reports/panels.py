"""Panels of Weights & Biases beyond single values and pictures: tables with pictures, and curves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lightning.pytorch.loggers import Logger, WandbLogger
from matplotlib.figure import Figure

from diffcorr.reports.canvas import as_array


def log_table(
    loggers: Iterable[Logger], name: str, columns: Sequence[str], rows: Iterable[Sequence[object]]
) -> None:
    """Send a table; loggers other than W&B's get none, what they need is in the run folder.

    Args:
        loggers: a trainer's loggers.
        name: of the panel.
        columns: their names.
        rows: a value for each column; figures become pictures.
    """
    takers = [logger for logger in loggers if isinstance(logger, WandbLogger)]
    if not takers:
        return
    from wandb import Image

    data = [[Image(as_array(v)) if isinstance(v, Figure) else v for v in row] for row in rows]
    for logger in takers:
        logger.log_table(name, columns=list(columns), data=data)


def log_curve(
    loggers: Iterable[Logger], name: str, points: Iterable[tuple[float, float]], x: str, y: str
) -> None:
    """Send a curve, drawn by W&B.

    Args:
        loggers: a trainer's loggers.
        name: of the panel.
        points: (x, y).
        x: what it is over.
        y: what it is of, with its protocol and unit.
    """
    takers = [logger for logger in loggers if isinstance(logger, WandbLogger)]
    if not takers:
        return
    from wandb import Table
    from wandb.plot import line

    data = [list(point) for point in points]
    for logger in takers:
        logger.experiment.log({name: line(Table(columns=[x, y], data=data), x, y, title=name)})
