"""Segmentations over their images, with outlines, beside the ground truth."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure
from PIL import Image
from scipy import ndimage

from diffcorr.errors import ImageError
from diffcorr.reports import canvas
from diffcorr.reports.canvas import GAP, INK, LINE, MARGIN
from diffcorr.types import UInt8Image

IntMask = npt.NDArray[np.int64]


def draw_segmentation(
    image: UInt8Image,
    mask: npt.ArrayLike,
    label: npt.ArrayLike | None = None,
    class_names: Sequence[str] | None = None,
    titles: Sequence[str] = ("image", "segments", "ground truth"),
    title: str | None = None,
    segment_names: Sequence[str] | None = None,
) -> Figure:
    """One image, its segments and, where given, the ground truth: a sheet of one row.

    Arguments and errors are those of :func:`draw_segmentation_sheet`, for one image.
    """
    labels = None if label is None else [label]
    return draw_segmentation_sheet(
        [image], [mask], labels, class_names, titles, title, segment_names=segment_names
    )


def draw_segmentation_sheet(
    images: Sequence[UInt8Image],
    masks: Sequence[npt.ArrayLike],
    labels: Sequence[npt.ArrayLike] | None = None,
    class_names: Sequence[str] | None = None,
    titles: Sequence[str] = ("image", "segments", "ground truth"),
    title: str | None = None,
    captions: Sequence[str] | None = None,
    segment_names: Sequence[str] | None = None,
) -> Figure:
    """Several images as rows: the image, its segments, the ground truth.

    Beside a ground truth a segment takes the colour of the class that it covers most, so that equal
    colours mean agreement; outlines keep neighbours apart where they share one. Classes are named inside
    their regions.

    Args:
        images: each (H, W, 3) uint8.
        masks: each (H, W) integers, segment ids, -1 for no segment (hatched).
        labels: each (H, W) integers, class indices, -1 ignored (hatched).
        class_names: names of the classes; without them regions are not named.
        titles: of the columns.
        title: printed above.
        captions: one line for each row, such as its score with the protocol's name.
        segment_names: where segments have names, the name of each id; segments then are named inside and
            keep the colour of their id, which is that of the class of the same number.

    Raises:
        ImageError: an image or mask has another shape, or the numbers of them differ.
    """
    canvas.check_count(masks, len(images), "masks")
    if labels is not None:
        canvas.check_count(labels, len(images), "labels")
    if captions is not None:
        canvas.check_count(captions, len(images), "captions")
    pictures = [canvas.check_image(image) for image in images]
    if not pictures:
        raise ImageError("expected at least one image to draw, found none")
    sizes = [canvas.panel_size(picture, 320) for picture in pictures]
    columns = 2 if labels is None else 3
    column_width = max(width for width, _ in sizes)
    heights = [height + (LINE + 4 if captions else 0) + GAP for _, height in sizes]
    inner = columns * column_width + (columns - 1) * GAP
    lines = canvas.wrap(title, 0.85 * inner, canvas.LARGE) if title else []  # bold letters are wider
    top = MARGIN + (LINE + int(1.3 * LINE) * len(lines) if lines else 0)
    figure = canvas.new_figure(2 * MARGIN + inner, top + LINE + 4 + sum(heights) - GAP + MARGIN)
    if lines:
        canvas.add_text(figure, MARGIN, MARGIN - 6, "\n".join(lines), canvas.LARGE, weight="bold")
    lefts = [MARGIN + column * (column_width + GAP) for column in range(columns)]
    for left, name in zip(lefts, titles, strict=False):
        canvas.add_text(figure, left, top - 4, name, canvas.MEDIUM, INK, "bold")

    upper = top + LINE + 4
    for row, (picture, size) in enumerate(zip(pictures, sizes, strict=True)):
        mask = _check_mask(masks[row], picture, "mask")
        label = None if labels is None else _check_mask(labels[row], picture, "label")
        canvas.add_image(figure, picture, lefts[0], upper, *size)
        colors = None if label is None or segment_names is not None else majority_classes(mask, label)
        canvas.add_image(figure, overlay(picture, mask, size, colors), lefts[1], upper, *size)
        if segment_names is not None:
            _name_regions(figure, mask, segment_names, lefts[1], upper, size)
        if label is not None:
            canvas.add_image(figure, overlay(picture, label, size), lefts[2], upper, *size)
            if class_names is not None:
                _name_regions(figure, label, class_names, lefts[2], upper, size)
        if captions is not None:
            canvas.add_text(figure, lefts[0], upper + size[1] + 4, captions[row], canvas.SMALL, canvas.MUTED)
        upper += heights[row]
    return figure


def overlay(
    image: UInt8Image, mask: IntMask, size: tuple[int, int], colors: dict[int, int] | None = None
) -> UInt8Image:
    """Segments in colour with outlines over the image in grey.

    Args:
        image: (H, W, 3) uint8.
        mask: (H, W), -1 is hatched in grey.
        size: (width, height) of the result.
        colors: segment id -> colour index; the id itself where ``None``.

    Returns:
        (height, width, 3) uint8.
    """
    grey = np.asarray(Image.fromarray(image).convert("L").resize(size, Image.Resampling.NEAREST)) / 255.0
    large = _resize(mask, size)
    ids, inverse = np.unique(large, return_inverse=True)
    indices = [int(index) if colors is None else colors[int(index)] for index in ids]
    flat = np.array([segment_color(index) for index in indices])[inverse.reshape(large.shape)]
    result = 0.35 * grey[..., None] + 0.65 * flat * (0.55 + 0.45 * grey[..., None])

    unlabelled = large < 0
    stripes = np.add.outer(np.arange(size[1]), np.arange(size[0])) % 12 < 3
    result[unlabelled] = (0.55 + 0.35 * grey[unlabelled])[:, None]
    result[unlabelled & stripes] = 0.45

    edge = _edges(large)
    result[ndimage.binary_dilation(edge, iterations=2)] = (1.0, 1.0, 1.0)
    result[edge] = (0.1, 0.1, 0.13)
    return (255 * np.clip(result, 0, 1) + 0.5).astype(np.uint8)


def segment_color(index: int) -> tuple[float, float, float]:
    """The colour of a class or segment, no two alike: tab20, then ever further round the circle of hues."""
    if index < 0:
        return (0.6, 0.6, 0.6)
    palette = matplotlib.colormaps["tab20"].colors  # type: ignore[attr-defined]
    # tab20 pairs a dark with a light shade of each hue: all dark ones come first.
    order = [*range(0, 20, 2), *range(1, 20, 2)]
    if index < len(order):
        return palette[order[index]]
    further = index - len(order)
    golden = 0.15 + 0.618034 * further  # neighbours in number lie far apart on the circle
    return colorsys.hls_to_rgb(golden % 1, (0.28, 0.65, 0.45)[further % 3], (0.95, 0.5)[further // 3 % 2])


def majority_classes(mask: IntMask, label: IntMask) -> dict[int, int]:
    """Segment id -> the class that it covers most, -1 where it covers none."""
    return {
        int(segment): int(np.bincount(known).argmax())
        if (known := _known(label[mask == segment])).size
        else -1
        for segment in np.unique(mask)
    }


def _known(labels: IntMask) -> IntMask:
    return labels[labels >= 0]


def _edges(mask: IntMask) -> npt.NDArray[np.bool_]:
    edge = np.zeros(mask.shape, bool)
    edge[:, 1:] |= mask[:, 1:] != mask[:, :-1]
    edge[1:, :] |= mask[1:, :] != mask[:-1, :]
    return edge


def _resize(mask: IntMask, size: tuple[int, int]) -> IntMask:
    picture = Image.fromarray(mask.astype(np.int32)).resize(size, Image.Resampling.NEAREST)
    return np.asarray(picture).astype(np.int64)


def _name_regions(
    figure: Figure,
    label: IntMask,
    names: Sequence[str],
    left: float,
    top: float,
    size: tuple[int, int],
) -> None:
    """Each class's name where its largest region is widest, if there is room for it."""
    large = _resize(label, size)
    for index in np.unique(large[large >= 0]):
        regions, count = ndimage.label(large == index)
        areas = ndimage.sum_labels(np.ones(large.shape), regions, np.arange(1, count + 1))
        region = np.pad(regions == 1 + int(np.argmax(areas)), 1)
        distance = ndimage.distance_transform_edt(region)[1:-1, 1:-1]
        y, x = np.unravel_index(int(distance.argmax()), distance.shape)
        if distance[y, x] < 9 or index >= len(names):
            continue
        name = names[int(index)]
        half = 0.5 * len(name) * 0.6 * canvas.SMALL * canvas.DPI / 72
        middle = left + float(np.clip(x, half + 4, max(half + 4, size[0] - half - 4)))
        text = canvas.add_text(figure, middle, top + y, name, canvas.SMALL, "white", "bold", "center")
        text.set_verticalalignment("center")
        text.set_path_effects(canvas.casing(2.4, INK, 0.9))


def _check_mask(mask: npt.ArrayLike, image: UInt8Image, name: str) -> IntMask:
    array = np.asarray(mask)
    if array.shape != image.shape[:2] or not np.issubdtype(array.dtype, np.integer):
        raise ImageError(
            f"expected {name} as integers {image.shape[:2]} like its image, found {array.dtype} {array.shape}"
        )
    return array.astype(np.int64)
