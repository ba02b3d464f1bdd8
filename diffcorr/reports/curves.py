"""PCK over alpha, one line for each method, with the area below it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from diffcorr.errors import ProtocolError
from diffcorr.reports import canvas
from diffcorr.reports.canvas import INK, LINE, MARGIN, MUTED

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#20242c")
"""Okabe and Ito's palette, told apart with any colour vision."""
_STYLES = ("solid", (0, (5, 2)), (0, (1, 1.5)))
_WIDTH, _HEIGHT, _LEFT = 760, 460, 60


def draw_curves(
    curves: Mapping[str, Sequence[tuple[float, float]]],
    areas: Mapping[str, float],
    protocol: str,
    title: str | None = None,
) -> Figure:
    """PCK in percent over alpha; the legend lists the methods by the area below their line, largest first.

    Args:
        curves: of each method (alpha, PCK in percent), alphas ascending.
        areas: of each method the mean of PCK over alpha from 0 to the last, in percent.
        protocol: name of the protocol, printed below.
        title: printed above.

    Raises:
        ProtocolError: there is no curve.
    """
    if not curves:
        raise ProtocolError("expected at least one curve to draw, found none")
    names = sorted(curves, key=lambda name: -areas[name])
    last = max(points[-1][0] for points in curves.values())
    heading = f"mean over alpha 0 to {last:g}"
    letters = max(len(heading), *(len(name) + 12 for name in names))  # 12: its area and the line before it
    legend = round(0.62 * letters * canvas.SMALL * canvas.DPI / 72) + 24
    top = MARGIN + (2 * LINE if title else 0)
    figure = canvas.new_figure(_LEFT + MARGIN + _WIDTH + legend + MARGIN, top + _HEIGHT + 3 * LINE + MARGIN)
    if title:
        canvas.add_text(figure, MARGIN, MARGIN - 6, title, canvas.LARGE, weight="bold")
    axes = canvas.add_axes(figure, MARGIN + _LEFT, top, _WIDTH, _HEIGHT)
    lines = []
    for number, name in enumerate(names):
        alphas, values = zip(*curves[name], strict=True)
        style = _STYLES[number // len(COLOURS) % len(_STYLES)]
        colour = COLOURS[number % len(COLOURS)]
        lines += axes.plot((0, *alphas), (0, *values), color=colour, linestyle=style, linewidth=1.8)
    axes.set_xlim(0, last)
    axes.set_ylim(0, max(1.0, 1.05 * max(value for points in curves.values() for _, value in points)))
    axes.grid(color="#e4e6eb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=canvas.SMALL, labelcolor=MUTED)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(MUTED)
    axes.set_xlabel("alpha", fontsize=canvas.SMALL, color=MUTED)
    axes.set_ylabel(f"PCK in %, protocol “{protocol}”", fontsize=canvas.SMALL, color=MUTED, parse_math=False)
    legend_of = axes.legend(
        lines,
        [f"{name}  {areas[name]:.1f}" for name in names],
        title=heading,
        loc="upper left",
        bbox_to_anchor=(1.02, 1.0),
        borderaxespad=0,
        frameon=False,
        fontsize=canvas.SMALL,
        labelcolor=INK,
        handlelength=2.6,
        alignment="left",
    )
    legend_of.get_title().set(fontsize=canvas.SMALL, color=MUTED)
    for text in legend_of.get_texts():
        text.set_parse_math(False)
    return figure
