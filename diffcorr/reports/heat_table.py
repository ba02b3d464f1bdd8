"""A table of numbers whose cells are shaded by them."""

from __future__ import annotations

from collections.abc import Sequence

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from diffcorr.errors import ProtocolError
from diffcorr.reports import canvas
from diffcorr.reports.canvas import INK, LINE, MARGIN, MUTED

_CELL, _ROW, _NAMES = 84, 40, 300


def draw_heat_table(
    values: npt.ArrayLike,
    rows: Sequence[str],
    columns: Sequence[str],
    title: str,
    note: str = "",
    form: str = "{:.1f}",
) -> Figure:
    """A heat map with its numbers written into it; the largest is bold.

    Args:
        values: (R, C); cells that are nan stay empty.
        rows, columns: their names, R and C of them.
        title: above the table, such as the metric with its protocol.
        note: below it.
        form: format of a number.

    Raises:
        ProtocolError: no finite value, or names of another number.
    """
    table = np.asarray(values, dtype=np.float64)
    if table.shape != (len(rows), len(columns)) or not np.isfinite(table).any():
        raise ProtocolError(
            f"expected finite values for {len(rows)} rows, {len(columns)} columns, found shape {table.shape}"
        )
    low, high = np.nanmin(table), np.nanmax(table)
    top = MARGIN + 2 * LINE
    width = 2 * MARGIN + _NAMES + _CELL * len(columns)
    figure = canvas.new_figure(max(width, 760), top + LINE + _ROW * len(rows) + 2 * LINE + MARGIN)
    canvas.add_text(figure, MARGIN, MARGIN - 6, title, canvas.LARGE, weight="bold")
    axes = canvas.add_axes(figure, MARGIN + _NAMES, top + LINE, _CELL * len(columns), _ROW * len(rows))
    shades = (table - low) / (high - low) if high > low else np.full_like(table, 0.5)
    colours = matplotlib.colormaps["cividis"]  # told apart with any colour vision
    axes.imshow(colours(np.nan_to_num(shades))[..., :3], aspect="auto")
    axes.set_axis_off()
    for r, c in np.ndindex(*table.shape):
        if not np.isfinite(table[r, c]):
            axes.add_patch(matplotlib.patches.Rectangle((c - 0.5, r - 0.5), 1, 1, color="white"))
            continue
        axes.text(
            c,
            r,
            form.format(table[r, c]),
            ha="center",
            va="center",
            fontsize=canvas.MEDIUM,
            color="white" if shades[r, c] < 0.6 else INK,
            weight="bold" if table[r, c] == high else "normal",
        )
    for r, name in enumerate(rows):
        canvas.add_text(figure, MARGIN, top + LINE + _ROW * (r + 0.5) - 9, name, canvas.SMALL)
    for c, name in enumerate(columns):
        x = MARGIN + _NAMES + _CELL * (c + 0.5)
        canvas.add_text(figure, x, top, name, canvas.SMALL, MUTED, align="center")
    if note:
        canvas.add_text(figure, MARGIN, top + LINE + _ROW * len(rows) + 14, note, canvas.SMALL, MUTED)
    return figure
