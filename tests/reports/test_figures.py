"""Figures are judged by their pixels: images crisp, points where they belong, right apart from wrong."""

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.patches import ConnectionPatch, Ellipse
from PIL import Image

from diffcorr.errors import ImageError, ProtocolError, StoreError
from diffcorr.reports import (
    as_array,
    draw_bars,
    draw_heatmaps,
    draw_matches,
    draw_segmentation,
    draw_segmentation_sheet,
    draw_sheet,
    draw_word_maps,
    heatmaps,
    masks,
    save_figure,
)
from diffcorr.reports.canvas import RIGHT, WRONG
from diffcorr.reports.matches import is_right
from diffcorr.stores import MetricRecord


def noise(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def pixel(figure, axes: int, point: tuple[float, float]) -> np.ndarray:
    """The colour at a point given in an image's own pixels, found through matplotlib's transform."""
    x, y = figure.axes[axes].transData.transform(point)
    rendered = as_array(figure)
    return rendered[round(rendered.shape[0] - y - 0.5), round(x - 0.5)]


def rgb(color: str) -> np.ndarray:
    return np.round(255 * np.array(to_rgb(color))).astype(int)


def contains(picture: np.ndarray, part: np.ndarray) -> bool:
    height, width = part.shape[:2]
    corners = np.argwhere((picture == part[0, 0]).all(-1))
    return any(np.array_equal(picture[y : y + height, x : x + width], part) for y, x in corners)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (96, 64), (128, 100)])
def test_small_images_are_shown_in_whole_square_pixels(height, width):
    image = noise(height, width)
    rendered = as_array(draw_sheet([image], ["caption"]))
    assert sum(contains(rendered, image.repeat(k, 0).repeat(k, 1)) for k in range(2, 6)) == 1


SOURCE, TARGET = np.full((64, 64, 3), 40, np.uint8), np.full((50, 80, 3), 40, np.uint8)
FROM, TO, TRUTH = (
    [(10, 10), (50, 20), (30, 50)],
    [(20.0, 10.0), (60.0, 30.0), (40.0, 40.0)],
    [
        (23.0, 14.0),  # distance 5: right at a threshold of 5
        (60.0, 35.1),  # distance 5.1: wrong
        (40.0, 40.0),
    ],
)


def test_right_and_wrong_differ_in_colour_line_and_marker():
    figure = draw_matches(SOURCE, TARGET, FROM, TO, TRUTH, 5.0, ["a", "b", "c"], threshold_name="5 px")
    ends = [pixel(figure, 1, point) for point in TO]
    assert np.array_equal(ends[0], rgb(RIGHT))
    assert np.array_equal(ends[1], rgb(WRONG))
    assert np.array_equal(ends[2], rgb(RIGHT))
    # A filled circle covers the point two source pixels above it, a cross does not.
    assert np.array_equal(pixel(figure, 1, (20.0, 9.3)), rgb(RIGHT))
    assert not np.array_equal(pixel(figure, 1, (60.0, 28.8)), rgb(WRONG))
    lines = [artist for artist in figure.findobj(ConnectionPatch)]
    assert [line.get_linestyle() in ("-", "solid") for line in lines] == [True, False, True]
    told = [text.get_text() for text in figure.legends[0].get_texts()]
    assert told == ["right 2 of 3", "wrong 1", "truth within 5 px"]


def test_without_truth_nothing_is_judged():
    figure = draw_matches(SOURCE, TARGET, FROM, TO)
    assert not figure.legends
    assert all(np.array_equal(pixel(figure, 1, point), rgb(RIGHT)) for point in TO)


def test_a_pair_without_keypoints_is_still_a_figure():
    assert as_array(draw_matches(SOURCE, TARGET, [], [], [], 5.0)).std() > 0


@pytest.mark.parametrize(
    "arguments",
    [
        (SOURCE.astype(float), TARGET, FROM, TO),
        (SOURCE[..., 0], TARGET, FROM, TO),
        (SOURCE, TARGET, FROM, TO[:2]),
        (SOURCE, TARGET, FROM, TO, TRUTH),
        (SOURCE, TARGET, FROM, TO, TRUTH[:2], 5.0),
        (SOURCE, TARGET, FROM, TO, TRUTH, 5.0, ["a"]),
    ],
)
def test_matches_that_do_not_fit_together_are_refused(arguments):
    with pytest.raises(ImageError) as error:
        draw_matches(*arguments)
    assert "\n" not in str(error.value)


def test_a_heatmap_is_bright_where_the_map_is_large():
    field = np.zeros((8, 8))
    field[2, 5] = 1.0
    drawn = heatmaps.overlay(np.full((64, 64, 3), 128, np.uint8), field).astype(int)
    brightest = np.unravel_index(drawn.sum(-1).argmax(), (64, 64))
    assert np.hypot(brightest[0] + 0.5 - 20, brightest[1] + 0.5 - 44) <= 4  # cell (2, 5), centre (44, 20)
    assert np.array_equal(drawn[60, 4], drawn[4, 4])
    assert np.ptp(drawn[60, 4]) == 0  # where the map is smallest, grey stays grey
    flat = heatmaps.overlay(np.full((64, 64, 3), 128, np.uint8), np.full((8, 8), 0.3))
    assert (flat == flat[0, 0]).all()


def test_heatmaps_add_the_mean_once_and_shorten_layer_names():
    name = "up_blocks.1.attentions.2.transformer_blocks.0.attn2"
    told = [text.get_text() for text in draw_heatmaps(SOURCE, {name: np.eye(4), "x": np.ones((8, 8))}).texts]
    assert {"up 1.2", "mean", "x"} <= set(told)
    given = draw_heatmaps(SOURCE, {name: np.eye(4), "mean": np.eye(4)}, point=(3.5, 4.5))
    assert [text.get_text() for text in given.texts].count("mean") == 1
    assert "mean" not in [text.get_text() for text in draw_heatmaps(SOURCE, {name: np.eye(4)}).texts]


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("mid_block.attentions.0.transformer_blocks.0.attn2", "mid 0"),
        ("down_blocks.2.attentions.1.transformer_blocks.3.attn1", "down 2.1.3"),
        ("transformer_blocks.7.attn", "transformer_blocks.7.attn"),
    ],
)
def test_short_layer_names(name, short):
    assert heatmaps.short_layer_name(name) == short


def test_every_word_has_its_panel():
    words = ["a", "red", "fish", "$$_"]
    figure = draw_word_maps(SOURCE, words, np.random.default_rng(0).random((4, 8, 8)), columns=3)
    assert len(figure.axes) == 5
    assert [text.get_text() for text in figure.texts if text.get_fontweight() == "bold"] == words
    as_array(figure)


def test_maps_that_do_not_fit_are_refused():
    for maps in ({}, {"x": np.full((4, 4), np.nan)}, {"x": np.zeros(4)}):
        with pytest.raises(ImageError):
            draw_heatmaps(SOURCE, maps)
    with pytest.raises(ImageError, match="expected 2 maps, found 3"):
        draw_word_maps(SOURCE, ["a", "b"], np.zeros((3, 4, 4)))


def test_outlines_lie_on_the_boundary_and_segments_differ():
    mask = np.zeros((8, 8), int)
    mask[:, 5:] = 1
    drawn = masks.overlay(np.full((8, 8, 3), 128, np.uint8), mask, (80, 80)).astype(int)
    assert (drawn[:, 50].max(axis=-1) < 40).all()  # the first column of segment 1
    assert (drawn[:, [48, 49, 51, 52]] == 255).all()
    assert not np.array_equal(drawn[40, 10], drawn[40, 70])
    assert np.array_equal(drawn[40, 10], drawn[5, 30])


def test_no_segment_is_grey_and_hatched():
    drawn = masks.overlay(noise(8, 8), np.full((8, 8), -1), (80, 80)).astype(int)
    assert (np.ptp(drawn, axis=-1) == 0).all()
    assert (drawn == round(0.45 * 255)).any()


def test_a_segment_takes_the_colour_of_the_class_it_covers_most():
    mask = np.array([[0, 0, 0, 1, 1, 2], [0, 0, 0, 1, 1, 2]])
    label = np.array([[3, 3, 4, 4, -1, -1], [3, 3, 4, -1, -1, -1]])
    assert masks.majority_classes(mask, label) == {0: 3, 1: 4, 2: -1}


def test_no_two_classes_share_a_colour():
    colors = np.array([masks.segment_color(index) for index in range(150)])  # ADE20K has the most classes
    apart = np.linalg.norm(colors[:, None] - colors[None], axis=-1) + np.eye(150)
    assert colors.min() >= 0
    assert colors.max() <= 1
    assert apart.min() > 0.05
    assert apart[:27, :27].min() > 0.09  # no closer than those of tab20, which most data sets need alone


def test_named_segments_keep_the_colours_of_their_classes():
    label = np.zeros((64, 64), int)
    label[:, 32:] = 1
    swapped = 1 - label
    names = ["sky", "car"]
    plain = draw_segmentation_sheet([noise(64, 64)], [swapped], [label], names)
    named = draw_segmentation_sheet([noise(64, 64)], [swapped], [label], names, segment_names=names)
    assert [text.get_text() for text in named.texts].count("sky") == 2
    assert [text.get_text() for text in plain.texts].count("sky") == 1
    middle = [np.asarray(figure.axes[1].images[0].get_array()) for figure in (plain, named)]
    truth = np.asarray(plain.axes[2].images[0].get_array())
    assert np.array_equal(middle[0], truth)  # by overlap
    assert not np.array_equal(middle[1], truth)  # by name, and all names are wrong


def test_a_sheet_names_classes_inside_their_regions():
    label = np.zeros((64, 64), int)
    label[:, 40:] = 1
    label[0, 0] = 2  # no room for a name
    names = ["sky", "$car$", "dot"]
    figure = draw_segmentation_sheet(
        [noise(64, 64)] * 2, [label] * 2, [label] * 2, names, captions=["mIoU 61.0 (per_image)", "b"]
    )
    assert len(figure.axes) == 6
    told = [text.get_text() for text in figure.texts]
    assert told.count("sky") == told.count("$car$") == 2
    assert "dot" not in told
    as_array(figure)
    assert len(draw_segmentation(noise(64, 64), label).axes) == 2


def test_segmentations_that_do_not_fit_are_refused():
    with pytest.raises(ImageError, match="like its image"):
        draw_segmentation(noise(8, 8), np.zeros((8, 9), int))
    with pytest.raises(ImageError, match="expected 1 masks, found 2"):
        draw_segmentation_sheet([noise(8, 8)], [np.zeros((8, 8), int)] * 2)
    with pytest.raises(ImageError, match="found none"):
        draw_segmentation_sheet([], [])


def test_captions_are_wrapped_whole_and_never_read_as_formulas():
    caption = r"a $\frac$ drawing of a blue car with brown roof, orange wheels, pink lights and white hubs"
    figure = draw_sheet([noise(64, 64)] * 3, [caption, "b", "c"], columns=2)
    as_array(figure)
    wrapped = figure.texts[0]
    assert wrapped.get_text().split() == caption.split()
    assert wrapped.get_window_extent().width <= 256
    with pytest.raises(ImageError, match="expected 1 captions, found 2"):
        draw_sheet([noise(8, 8)], ["a", "b"])


def record(method: str, value: float, seed: int = 0, **extra: object) -> MetricRecord:
    return MetricRecord(
        "correspondence", method, "tiny", "partworld", "test", "standard", "pck@0.10", value, 240, seed, extra
    )


def test_bars_are_as_long_as_their_means_and_name_the_protocol():
    records = [record("dift", value, seed) for seed, value in enumerate((20.0, 22.0, 24.0))]
    figure = draw_bars([*records, record("chance", 3.0), record("dift", 50.0, style="flat")])
    whole, part = figure.axes
    assert [bar.get_width() for bar in whole.patches] == [3.0, 22.0]
    assert [label.get_text() for label in whole.get_yticklabels()] == ["chance", "dift"]
    assert {"22.0 ± 2.0", "3.0"} <= {text.get_text() for text in whole.texts}
    assert [bar.get_width() for bar in part.patches] == [50.0]
    assert all("“standard”" in axes.get_xlabel() for axes in figure.axes)
    whisker = next(line for line in whole.lines if line.get_marker() == "|")
    assert list(whisker.get_xdata()) == [20.0, 24.0]


def test_bars_without_records_are_refused():
    with pytest.raises(ProtocolError):
        draw_bars([])


def test_a_figure_is_saved_as_it_is_drawn(tmp_path):
    figure = draw_sheet([noise(64, 64)], ["a"])
    path = save_figure(figure, tmp_path / "new" / "sheet.png")
    with Image.open(path) as image:
        assert np.array_equal(np.asarray(image.convert("RGB")), as_array(figure))
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError):
        save_figure(figure, tmp_path / "file" / "sheet.png")


def test_what_counts_in_a_stretched_image_is_an_ellipse():
    truth = np.zeros((4, 2))
    found = np.array([(10.0, 0.0), (0.0, 10.0), (0.0, 2.5), (8.0, 2.0)])
    assert is_right(found, truth, (10.0, 2.5)).tolist() == [True, False, True, False]
    for circle in (10.0, (10.0, 10.0)):
        assert is_right(found, truth, circle).tolist() == [True] * 4
    figure = draw_matches(SOURCE, TARGET, FROM, TO, TRUTH, (8.0, 4.0))
    (shape, *_) = [patch for axes in figure.axes for patch in axes.patches if isinstance(patch, Ellipse)]
    assert (shape.width, shape.height) == (16.0, 8.0)
