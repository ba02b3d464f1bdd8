"""Figures of a sweep: a score over a swept value, and against what it costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, NullLocator

from diffcorr.errors import ProtocolError
from diffcorr.reports import canvas
from diffcorr.reports.canvas import ACCENT, INK, LINE, MARGIN, MUTED
from diffcorr.reports.curves import COLOURS

_WIDTH, _HEIGHT, _LEFT = 760, 420, 60


class Mark(NamedTuple):
    """A score and its interval, percent."""

    value: float
    low: float
    high: float


def draw_sweep(
    lines: Mapping[str, Sequence[Mark | None]],
    values: Sequence[str],
    key: str,
    score: str,
    reference: str | None = None,
    joined: bool = True,
) -> Figure:
    """The score over the values of one key, at equal distances, with intervals.

    Args:
        lines: by what they have in common beside (several where other keys are swept too; one may be
            unnamed), a mark for each value, None where there is none yet.
        values: in their order.
        key: what they are values of.
        score: name of the score with its protocol and unit.
        reference: the value that others are compared to, set off in the figure.
        joined: whether values have an order, so that a line joins them.

    Raises:
        ProtocolError: there is no mark.
    """
    if not any(mark for marks in lines.values() for mark in marks):
        raise ProtocolError("expected a score to draw, found none: wait for the first run to end")
    letters = max(map(len, lines))
    legend = round(0.62 * letters * canvas.SMALL * canvas.DPI / 72) + 60 if len(lines) > 1 else 0
    width = max(_WIDTH, 90 * len(values))
    figure = canvas.new_figure(_LEFT + width + legend + 3 * MARGIN, MARGIN + _HEIGHT + 3 * LINE + MARGIN)
    axes = canvas.add_axes(figure, MARGIN + _LEFT, MARGIN, width, _HEIGHT)
    if reference in values:
        axes.axvspan(values.index(reference) - 0.3, values.index(reference) + 0.3, color="#eef1f5", zorder=0)
    for number, (name, marks) in enumerate(lines.items()):
        # beside one another, so that intervals of one value can be told apart
        shift = 0.0 if len(lines) == 1 else 0.3 * (number / (len(lines) - 1) - 0.5)
        there = [(place + shift, mark) for place, mark in enumerate(marks) if mark is not None]
        if not there:
            continue
        colour = COLOURS[number % len(COLOURS)]
        for x, mark in there:
            axes.plot((x, x), (mark.low, mark.high), color=colour, linewidth=1.2, alpha=0.55)
        axes.plot(
            [x for x, _ in there],
            [mark.value for _, mark in there],
            color=colour,
            linewidth=1.2,
            linestyle="solid" if joined else "none",
            marker="o",
            markersize=4.5,
            label=name,
        )
    axes.set_xlim(-0.5, len(values) - 0.5)
    axes.set_xticks(range(len(values)), list(values))
    axes.grid(axis="y", color="#e4e6eb", linewidth=0.8)
    _plain(axes)
    axes.set_xlabel(key, fontsize=canvas.SMALL, color=INK, parse_math=False)
    axes.set_ylabel(score, fontsize=canvas.SMALL, color=MUTED, parse_math=False)
    for tick in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        tick.set_parse_math(False)
    if len(lines) > 1:
        shown = axes.legend(
            loc="upper left",
            bbox_to_anchor=(1.01, 1.0),
            borderaxespad=0,
            frameon=False,
            fontsize=canvas.SMALL,
            labelcolor=INK,
        )
        for text in shown.get_texts():
            text.set_parse_math(False)
    return figure


def draw_costs(marks: Mapping[str, tuple[float, Mark]], cost: str, score: str) -> Figure:
    """The score against what it costs; settings that none beats in both are joined and listed.

    Args:
        marks: by name of the setting, its cost (positive) and its score.
        cost: name of the cost with its unit.
        score: name of the score with its protocol and unit.

    Raises:
        ProtocolError: there is no setting.
    """
    if not marks:
        raise ProtocolError("expected a cost to draw, found none: only finished runs have one")
    best = frontier({name: (at, mark.value) for name, (at, mark) in marks.items()})
    listed = [f"{number}  {name}" for number, name in enumerate(best, start=1)]
    legend = round(0.62 * max(map(len, listed)) * canvas.SMALL * canvas.DPI / 72)
    right = _LEFT + _WIDTH + 2 * MARGIN
    figure = canvas.new_figure(right + legend + MARGIN, MARGIN + _HEIGHT + 3 * LINE + MARGIN)
    axes = canvas.add_axes(figure, MARGIN + _LEFT, MARGIN, _WIDTH, _HEIGHT)
    axes.step(
        [marks[name][0] for name in best],
        [marks[name][1].value for name in best],
        where="post",
        color=ACCENT,
        linewidth=1.4,
    )
    for name, (at, mark) in marks.items():
        colour = ACCENT if name in best else MUTED
        axes.plot((at, at), (mark.low, mark.high), color=colour, linewidth=1.0, alpha=0.45)
        axes.plot(at, mark.value, marker="o", markersize=5, color=colour)
    costs = [at for at, _ in marks.values()]
    if max(costs) / min(costs) > 3:
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
        ticks = np.geomspace(min(costs), max(costs), 5)
        axes.set_xticks(ticks, [f"{tick:.3g}" for tick in ticks])
        axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.12, y=0.12)
    for number, name in enumerate(best, start=1):
        at, mark = marks[name]
        place = (-4, 7) if number % 2 else (-4, -16)  # above and below in turn, so that they do not meet
        axes.annotate(
            str(number),
            (at, mark.value),
            xytext=place,
            textcoords="offset points",
            fontsize=canvas.SMALL,
            color=INK,
        )
    for number, text in enumerate(listed):
        canvas.add_text(figure, right, MARGIN + LINE * number, text, canvas.SMALL)
    axes.grid(color="#e4e6eb", linewidth=0.8)
    _plain(axes)
    axes.set_xlabel(cost, fontsize=canvas.SMALL, color=INK, parse_math=False)
    axes.set_ylabel(score, fontsize=canvas.SMALL, color=MUTED, parse_math=False)
    return figure


def frontier(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """Names of those (cost, score) that no other beats or equals at the same or a lower cost; cheap first."""
    best: list[str] = []
    for name in sorted(points, key=lambda n: (points[n][0], -points[n][1])):
        if not best or points[name][1] > points[best[-1]][1]:
            best.append(name)
    return best


def _plain(axes: Axes) -> None:
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=canvas.SMALL, labelcolor=INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(MUTED)
