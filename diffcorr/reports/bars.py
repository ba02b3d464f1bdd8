"""Methods side by side as bars, one panel for each metric and protocol."""

from __future__ import annotations

from collections.abc import Iterable

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from diffcorr.errors import ProtocolError
from diffcorr.reports import canvas
from diffcorr.reports.canvas import INK, LINE, MARGIN, MUTED
from diffcorr.reports.summary import Score, Setting, summarise
from diffcorr.stores.records import MetricRecord

_BAR, _BEST = "#a9c6dc", "#0072b2"
_ROW, _PANEL, _NAMES, _VALUES = 40, 620, 190, 120
_AXIS = 2 * LINE + 20


def draw_bars(records: Iterable[MetricRecord], title: str | None = None) -> Figure:
    """The mean over seeds of every method, best on top; each seed is a dot.

    The whisker is the sample standard deviation over seeds or, for a single seed whose record has the
    extra key ``interval`` (low, high), that interval. Each panel names its protocol and data.

    Args:
        records: scores in percent; those of one metric, protocol, data set and group share a panel.
        title: printed above.

    Raises:
        ProtocolError: there are no records.
    """
    panels: dict[tuple[str, Setting], list[Score]] = {}
    for score in summarise(records):
        panels.setdefault((score.metric, score.setting), []).append(score)
    if not panels:
        raise ProtocolError("expected at least one metric record to draw, found none: run eval.py first")
    top = MARGIN + (2 * LINE if title else 0)
    heights = [LINE + 8 + _ROW * len(scores) + _AXIS for scores in panels.values()]
    figure = canvas.new_figure(
        2 * MARGIN + _NAMES + _PANEL + _VALUES, top + sum(heights) + MARGIN * (len(panels) - 1) + MARGIN
    )
    if title:
        canvas.add_text(figure, MARGIN, MARGIN - 6, title, canvas.LARGE, weight="bold")
    for scores, height in zip(panels.values(), heights, strict=True):
        _draw_panel(figure, sorted(scores, key=lambda score: score.mean), top)
        top += height + MARGIN
    return figure


def _draw_panel(figure: Figure, scores: list[Score], top: float) -> None:
    metric, setting = scores[0].metric, scores[0].setting
    heading = f"{metric}, {setting.group}" if setting.group else metric
    canvas.add_text(figure, MARGIN, top, heading, canvas.MEDIUM, INK, "bold")
    axes = canvas.add_axes(figure, MARGIN + _NAMES, top + LINE + 8, _PANEL, _ROW * len(scores))
    best = scores[-1].mean
    for row, score in enumerate(scores):
        axes.barh(row, score.mean, height=0.62, color=_BEST if score.mean == best else _BAR)
        low, high = _whisker(score)
        if high > low:
            axes.plot([low, high], [row, row], color=INK, linewidth=1.3, marker="|", markersize=7)
        if len(score.values) > 1:
            axes.plot(
                score.values,
                [row - 0.2] * len(score.values),
                "o",
                color="white",
                markeredgecolor=INK,
                markersize=3.2,
                markeredgewidth=0.7,
            )
        axes.annotate(
            score.text,
            (max(score.mean, high, *score.values), row),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=canvas.MEDIUM,
            color=INK,
            fontweight="bold" if score.mean == best else "normal",
            annotation_clip=False,
        )
    widest = max(max(score.mean, _whisker(score)[1], *score.values) for score in scores)
    axes.set_xlim(0, max(1.0, 1.02 * widest))
    axes.set_ylim(-0.6, len(scores) - 0.4)
    axes.set_yticks(range(len(scores)), [score.method for score in scores], fontsize=canvas.MEDIUM, color=INK)
    for tick in axes.get_yticklabels():
        tick.set_parse_math(False)
    axes.xaxis.set_major_locator(MaxNLocator(6))
    axes.tick_params(axis="both", length=0, labelsize=canvas.SMALL, labelcolor=MUTED)
    axes.tick_params(axis="y", labelsize=canvas.MEDIUM, labelcolor=INK)
    axes.grid(axis="x", color="#e4e6eb", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)
    axes.spines["left"].set_color(MUTED)
    seeds = len(scores[0].values)
    over = f"{scores[0].num_items} items" + (f", {seeds} seeds: mean ± std" if seeds > 1 else "")
    axes.set_xlabel(
        f"{metric} in %, protocol “{setting.protocol}”, {setting.dataset} {setting.split}, "
        f"{setting.backbone}; {over}",
        fontsize=canvas.SMALL,
        color=MUTED,
        labelpad=6,
        parse_math=False,
    )


def _whisker(score: Score) -> tuple[float, float]:
    if score.std is not None:
        return score.mean - score.std, score.mean + score.std
    return score.interval or (score.mean, score.mean)
