"""Source and target side by side, with a line for every keypoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import ConnectionPatch, Ellipse

from diffcorr.errors import ImageError
from diffcorr.reports import canvas
from diffcorr.reports.canvas import GAP, INK, LINE, MARGIN, MUTED, RIGHT, WRONG
from diffcorr.types import UInt8Image

Place = npt.NDArray[np.float64]
"""One point, (2,), in pixels of its image."""


def draw_matches(
    source: UInt8Image,
    target: UInt8Image,
    source_points: npt.ArrayLike,
    predicted: npt.ArrayLike,
    truth: npt.ArrayLike | None = None,
    threshold: float | tuple[float, float] | None = None,
    names: Sequence[str] | None = None,
    title: str | None = None,
    threshold_name: str = "threshold",
) -> Figure:
    """Where each source keypoint was found in the target.

    A right point has a solid blue line that ends in a filled circle; a wrong one a dashed orange line
    that ends in a cross, with a dotted line on to the truth. Without ``truth`` nothing is judged.

    Args:
        source: (H, W, 3) uint8.
        target: (H, W, 3) uint8, of any other size.
        source_points: (N, 2), (x, y) in pixels of the source, pixel centres at +0.5.
        predicted: (N, 2), in pixels of the target.
        truth: (N, 2), in pixels of the target; right means within ``threshold`` of it.
        threshold: distance in pixels of the target, or one along x and one along y where the protocol
            measures in a stretched image; needed with ``truth``.
        names: N names of the keypoints, listed below the images by their numbers.
        title: printed above.
        threshold_name: how the legend calls the threshold: the protocol, such as
            ``"0.10 x longer bbox side (standard)"``.

    Raises:
        ImageError: an image or a list of points has another shape, or ``truth`` comes without
            ``threshold``.
    """
    source, target = canvas.check_image(source, "source"), canvas.check_image(target, "target")
    from_points = canvas.check_points(source_points, name="source_points")
    count = len(from_points)
    to_points = canvas.check_points(predicted, count, "predicted")
    true_points = None if truth is None else canvas.check_points(truth, count, "truth")
    right = is_right(to_points, true_points, threshold)
    if names is not None:
        canvas.check_count(names, count, "names")

    (left_width, left_height), (right_width, right_height) = (
        canvas.panel_size(image, 512) for image in (source, target)
    )
    width = 2 * MARGIN + left_width + 3 * GAP + right_width
    # Spaces that do not break keep a number with its name; textwrap knows them from others.
    listed = [f"{number}\u00a0{name}" for number, name in enumerate(names or (), start=1)]
    text = "   ".join(name.replace(" ", "\u00a0") for name in listed)
    name_lines = canvas.wrap(text, width - 2 * MARGIN, max_lines=6) if listed else []
    top = MARGIN + (2 * LINE if title else 0)
    below = top + LINE + max(left_height, right_height) + GAP
    names_top = below if right is None else below + LINE + 8
    figure = canvas.new_figure(width, names_top + LINE * len(name_lines) + MARGIN - 8)

    if title:
        canvas.add_text(figure, MARGIN, MARGIN - 6, title, canvas.LARGE, weight="bold")
    target_left = MARGIN + left_width + 3 * GAP
    canvas.add_text(figure, MARGIN, top, "source", canvas.SMALL, MUTED)
    canvas.add_text(figure, target_left, top, "target", canvas.SMALL, MUTED)
    source_axes = canvas.add_image(figure, source, MARGIN, top + LINE, left_width, left_height)
    target_axes = canvas.add_image(figure, target, target_left, top + LINE, right_width, right_height)
    for index in range(count):
        start, end = from_points[index], to_points[index]
        state = None if right is None else bool(right[index])
        _draw_line(figure, source_axes, target_axes, start, end, state)
        if true_points is not None and threshold is not None:
            _draw_truth(figure, target_axes, true_points[index], end, threshold, bool(state))
        _draw_number(figure, source_axes, start, index + 1)
        _draw_end(figure, target_axes, end, state)

    _draw_legend(figure, below, right, threshold_name)
    for row, line in enumerate(name_lines):
        canvas.add_text(figure, MARGIN, names_top + LINE * row, line, canvas.SMALL, MUTED)
    return figure


def is_right(
    predicted: npt.NDArray[np.float64],
    truth: npt.NDArray[np.float64] | None,
    threshold: float | tuple[float, float] | None,
) -> npt.NDArray[np.bool_] | None:
    """Which points lie within the threshold of the truth, (N,); ``None`` where nothing is to be judged.

    Raises:
        ImageError: there is a truth but no threshold.
    """
    if truth is None:
        return None
    if threshold is None:
        raise ImageError("expected a threshold in pixels beside truth, found none: give both or neither")
    x, y = threshold if isinstance(threshold, tuple) else (threshold, threshold)
    # in units of y, so that a circle is measured in pixels
    return np.linalg.norm((predicted - truth) * (y / x, 1.0), axis=1) <= y


def _draw_line(
    figure: Figure, source: Axes, target: Axes, start: Place, end: Place, right: bool | None
) -> None:
    figure.add_artist(
        ConnectionPatch(
            xyA=tuple(start),
            coordsA=source.transData,
            xyB=tuple(end),
            coordsB=target.transData,
            color=WRONG if right is False else RIGHT,
            linewidth=1.4,
            linestyle=(0, (4, 2.5)) if right is False else "solid",
            path_effects=canvas.casing(2.8, alpha=0.7),
            zorder=3,
        )
    )


def _draw_truth(
    figure: Figure,
    axes: Axes,
    truth: Place,
    end: Place,
    threshold: float | tuple[float, float],
    right: bool,
) -> None:
    """The circle or ellipse in which a prediction counts, and for a wrong one the way that it missed."""
    x, y = threshold if isinstance(threshold, tuple) else (threshold, threshold)
    for color, width in (("white", 2.2), (INK, 1.0)):
        axes.add_patch(Ellipse(tuple(truth), 2 * x, 2 * y, fill=False, edgecolor=color, linewidth=width))
    if not right:
        _line(figure, axes, [truth, end], color=WRONG, linestyle=":", linewidth=1.2, zorder=3)
        _line(figure, axes, [truth], marker="o", color=INK, markersize=3.5, markeredgecolor="white", zorder=4)


def _draw_number(figure: Figure, axes: Axes, point: Place, number: int) -> None:
    _line(figure, axes, [point], marker="o", markersize=11, color="white", markeredgecolor=INK, zorder=5)
    figure.text(
        point[0],
        point[1],
        str(number),
        transform=axes.transData,
        fontsize=6.5,
        fontweight="bold",
        color=INK,
        ha="center",
        va="center_baseline",
        zorder=6,
    )


def _draw_end(figure: Figure, axes: Axes, point: Place, right: bool | None) -> None:
    if right is False:
        for color, width in (("white", 4.0), (WRONG, 2.2)):
            _line(
                figure, axes, [point], marker="x", markersize=8, color=color, markeredgewidth=width, zorder=5
            )
    else:
        _line(
            figure,
            axes,
            [point],
            marker="o",
            markersize=8.5,
            color=RIGHT,
            markeredgecolor="white",
            markeredgewidth=1.3,
            zorder=5,
        )


def _line(figure: Figure, axes: Axes, points: Sequence[Place], **style: Any) -> None:
    """A line in an image's pixels that lies above the images, so that no panel's border cuts it."""
    xs, ys = zip(*points, strict=True)
    figure.add_artist(Line2D(xs, ys, transform=axes.transData, **style))


def _draw_legend(
    figure: Figure, top: float, right: npt.NDArray[np.bool_] | None, threshold_name: str
) -> None:
    if right is None:
        return
    right_key = Line2D([], [], color=RIGHT, marker="o", markersize=7, markeredgecolor="white", linewidth=1.4)
    wrong_key = Line2D(
        [], [], color=WRONG, marker="x", markersize=6.5, markeredgewidth=2, linewidth=1.4, ls="--"
    )
    truth_key = Line2D(
        [], [], color="none", marker="o", markersize=9, markerfacecolor="none", markeredgecolor=INK
    )
    figure.legend(
        [right_key, wrong_key, truth_key],
        [
            f"right {int(right.sum())} of {len(right)}",
            f"wrong {int((~right).sum())}",
            f"truth within {threshold_name}",
        ],
        loc="upper left",
        bbox_to_anchor=(MARGIN / figure.bbox.width, 1 - (top - 4) / figure.bbox.height),
        borderaxespad=0,
        borderpad=0,
        ncols=3,
        frameon=False,
        fontsize=canvas.SMALL,
        labelcolor=INK,
        handlelength=2.6,
        columnspacing=1.8,
    )
