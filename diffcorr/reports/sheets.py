"""A sheet of images with their captions: what a model draws when asked."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.figure import Figure

from diffcorr.errors import ImageError
from diffcorr.reports import canvas
from diffcorr.reports.canvas import GAP, LINE, MARGIN, MUTED
from diffcorr.types import UInt8Image


def draw_sheet(
    images: Sequence[UInt8Image],
    captions: Sequence[str],
    columns: int = 4,
    title: str | None = None,
    side: int = 256,
) -> Figure:
    """Images in rows, each with its caption below.

    Args:
        images: each (H, W, 3) uint8.
        captions: one for each image, broken into lines; a very long one ends in an ellipsis.
        columns: images in a row.
        title: printed above.
        side: about how many pixels wide an image is shown.

    Raises:
        ImageError: an image has another shape, there is none, or the captions are fewer or more.
    """
    canvas.check_count(captions, len(images), "captions")
    pictures = [canvas.check_image(image) for image in images]
    if not pictures:
        raise ImageError("expected at least one image to draw, found none")
    sizes = [canvas.panel_size(picture, side) for picture in pictures]
    columns = min(columns, len(pictures))
    width, height = max(size[0] for size in sizes), max(size[1] for size in sizes)
    texts = [canvas.wrap(caption, width, canvas.SMALL, max_lines=8) for caption in captions]
    lines = [max(map(len, texts[start : start + columns])) for start in range(0, len(texts), columns)]
    heights = [height + 6 + LINE * count + GAP for count in lines]

    top = MARGIN + (2 * LINE if title else 0)
    figure = canvas.new_figure(
        2 * MARGIN + columns * width + (columns - 1) * GAP, top + sum(heights) - GAP + MARGIN
    )
    if title:
        canvas.add_text(figure, MARGIN, MARGIN - 6, title, canvas.LARGE, weight="bold")
    for index, (picture, size) in enumerate(zip(pictures, sizes, strict=True)):
        row, column = divmod(index, columns)
        left, upper = MARGIN + column * (width + GAP), top + sum(heights[:row])
        canvas.add_image(figure, picture, left, upper, *size)
        canvas.add_text(figure, left, upper + size[1] + 6, "\n".join(texts[index]), canvas.SMALL, MUTED)
    return figure
