"""Attention maps laid over their image: one panel per layer, or one per word."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from diffcorr.errors import ImageError
from diffcorr.reports import canvas
from diffcorr.reports.canvas import GAP, INK, LINE, MARGIN, MUTED
from diffcorr.types import Point, UInt8Image


def draw_heatmaps(
    image: UInt8Image,
    maps: Mapping[str, npt.ArrayLike],
    point: Point | None = None,
    title: str | None = None,
    columns: int = 6,
) -> Figure:
    """The image, the map of every layer over it, and their mean.

    Each panel is scaled to its own smallest and largest value; a ring marks the largest, printed
    below. Maps are enlarged bilinearly, so that a coarse one looks coarse but not blocky.

    Args:
        image: (H, W, 3) uint8.
        maps: label -> (h, w) map of any resolution, finite. The mean is added where there are several
            and none is called ``"mean"``.
        point: (x, y) in pixels of the image, marked by a cross in every panel: the query, or the truth.
        title: printed above.
        columns: panels in a row at most.

    Raises:
        ImageError: the image or a map has another shape, or a map is not finite.
    """
    image = canvas.check_image(image)
    fields = {label: _check_map(field, label) for label, field in maps.items()}
    if not fields:
        raise ImageError("expected at least one map to draw, found none")
    if len(fields) > 1 and "mean" not in fields:
        size = (image.shape[1], image.shape[0])
        fields["mean"] = np.mean([_enlarge(field, size) for field in fields.values()], axis=0)
    labels = [(short_layer_name(label), label == "mean") for label in fields]
    return _draw_panels(image, list(fields.values()), labels, point, title, columns)


def draw_word_maps(
    image: UInt8Image,
    words: Sequence[str],
    maps: npt.ArrayLike,
    title: str | None = None,
    columns: int = 5,
) -> Figure:
    """The image, and for every word of a caption the map of where the model sees it.

    Args:
        image: (H, W, 3) uint8.
        words: N words (or tokens) in their order.
        maps: (N, h, w), finite; each panel is scaled to its own range.
        title: printed above, for instance the whole caption.
        columns: panels in a row at most.

    Raises:
        ImageError: the image or the maps have another shape, or a map is not finite.
    """
    image = canvas.check_image(image)
    fields = [_check_map(field, "a word") for field in np.asarray(maps)]
    canvas.check_count(fields, len(words), "maps")
    return _draw_panels(image, fields, [(word, True) for word in words], None, title, columns)


def overlay(image: UInt8Image, field: npt.ArrayLike, size: tuple[int, int] | None = None) -> UInt8Image:
    """A map in colour over its image, which is dimmed so that what is bright is attention.

    Args:
        image: (H, W, 3) uint8.
        field: (h, w) map; its smallest value shows the bare image, its largest the brightest colour.
        size: (width, height) of the result; the image's own where ``None``.

    Returns:
        (height, width, 3) uint8.
    """
    width, height = size or (image.shape[1], image.shape[0])
    large = _enlarge(np.asarray(field, dtype=np.float64), (width, height))
    spread = large.max() - large.min()
    strength = (large - large.min()) / spread if spread > 0 else np.zeros_like(large)
    picture = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.NEAREST)) / 255.0
    # Half the colour stays: parts that differ in hue alone would vanish in grey.
    dim = 0.12 + 0.55 * (0.5 * picture + 0.5 * picture.mean(axis=-1, keepdims=True))
    color = matplotlib.colormaps["inferno"](0.15 + 0.85 * strength)[..., :3]
    opacity = (0.9 * strength**0.75)[..., None]
    return (255 * (dim * (1 - opacity) + color * opacity) + 0.5).astype(np.uint8)


def short_layer_name(name: str) -> str:
    """A layer's module path without the parts that every layer has: ``up 1.0`` for an up block's first."""
    found = re.match(
        r"(down|up|mid)_block(?:s\.(\d+))?\.attentions\.(\d+)\.transformer_blocks\.(\d+)\.attn", name
    )
    if not found:
        return name
    part, block, attention, depth = found.groups()
    place = ".".join([*([block] if block else []), attention, *([depth] if depth != "0" else [])])
    return f"{part} {place}"


def _draw_panels(
    image: UInt8Image,
    fields: Sequence[npt.NDArray[np.float64]],
    labels: Sequence[tuple[str, bool]],
    point: Point | None,
    title: str | None,
    columns: int,
) -> Figure:
    width, height = canvas.panel_size(image, 288)
    count = len(fields) + 1
    columns = min(columns, count)
    rows = -(-count // columns)
    row_height = height + 2 * LINE + GAP
    top = MARGIN + (2 * LINE if title else 0)
    figure = canvas.new_figure(
        2 * MARGIN + columns * width + (columns - 1) * GAP, top + rows * row_height - GAP + MARGIN
    )
    if title:
        room = 0.85 * (columns * width + (columns - 1) * GAP)  # bold letters are wider
        line = canvas.wrap(title, room, canvas.LARGE, 1)[0]
        canvas.add_text(figure, MARGIN, MARGIN - 6, line, canvas.LARGE, weight="bold")
    for index in range(count):
        left = MARGIN + (index % columns) * (width + GAP)
        upper = top + (index // columns) * row_height
        field = fields[index - 1] if index else None
        picture = image if field is None else overlay(image, field, (width, height))
        axes = canvas.add_image(figure, picture, left, upper, width, height)
        scale_x, scale_y = picture.shape[1] / image.shape[1], picture.shape[0] / image.shape[0]
        if field is not None:
            large = _enlarge(field, (width, height))
            y, x = np.unravel_index(int(large.argmax()), large.shape)
            _mark(axes, x + 0.5, y + 0.5, "o", "white")
        if point is not None:
            _mark(axes, point[0] * scale_x, point[1] * scale_y, "+", "#56b4e9")
        label, strong = labels[index - 1] if index else ("image", False)
        below = upper + height + 6
        canvas.add_text(
            figure,
            left,
            below,
            canvas.wrap(label, width, canvas.MEDIUM, 1)[0],
            canvas.MEDIUM,
            INK,
            "bold" if strong else "normal",
        )
        if field is not None:
            canvas.add_text(figure, left, below + LINE, f"peak {field.max():.2g}", canvas.SMALL, MUTED)
    return figure


def _mark(axes: Axes, x: float, y: float, marker: str, color: str) -> None:
    """A ring (``o``) or a cross (``+``) with a dark border, legible on dark and on bright."""
    for line_color, width in ((INK, 3.4), (color, 1.6)):
        axes.add_line(
            Line2D(
                [x],
                [y],
                marker=marker,
                markersize=10,
                markerfacecolor="none",
                markeredgecolor=line_color,
                markeredgewidth=width,
            )
        )


def _enlarge(field: npt.NDArray[np.float64], size: tuple[int, int]) -> npt.NDArray[np.float64]:
    picture = Image.fromarray(field.astype(np.float32))
    return np.asarray(picture.resize(size, Image.Resampling.BILINEAR), dtype=np.float64)


def _check_map(field: npt.ArrayLike, label: str) -> npt.NDArray[np.float64]:
    array = np.asarray(field, dtype=np.float64)
    if array.ndim != 2 or array.size == 0 or not np.isfinite(array).all():
        raise ImageError(f"expected the map of {label} as finite (h, w), found {array.shape} or nan in it")
    return array
