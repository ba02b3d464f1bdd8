import pytest

from diffcorr.errors import ProtocolError
from diffcorr.reports import as_array
from diffcorr.reports.curves import COLOURS, draw_curves


def test_lines_go_through_their_points_and_the_legend_is_by_area():
    curves = {"low": [(0.1, 10.0), (0.2, 20.0)], "$high$": [(0.1, 50.0), (0.2, 60.0)]}
    figure = draw_curves(curves, {"low": 8.0, "$high$": 40.25}, "standard", title="both")
    (axes,) = figure.axes
    drawn = {tuple(line.get_ydata()): tuple(line.get_xdata()) for line in axes.lines}
    assert drawn == {(0.0, 10.0, 20.0): (0.0, 0.1, 0.2), (0.0, 50.0, 60.0): (0.0, 0.1, 0.2)}
    legend = axes.get_legend()
    assert [text.get_text() for text in legend.get_texts()] == ["$high$  40.2", "low  8.0"]
    assert legend.get_title().get_text() == "mean over alpha 0 to 0.2"
    assert "“standard”" in axes.get_ylabel()
    pixels = as_array(figure)
    assert pixels.shape[1] > 760
    assert legend.get_window_extent().x1 <= pixels.shape[1]


def test_many_methods_are_told_apart():
    names = [f"method number {n}" for n in range(len(COLOURS) + 3)]
    figure = draw_curves({name: [(0.2, 5.0)] for name in names}, dict.fromkeys(names, 1.0), "dift")
    looks = {(line.get_color(), line.get_linestyle()) for line in figure.axes[0].lines}
    assert len(looks) == len(names)


def test_no_curve_is_refused():
    with pytest.raises(ProtocolError, match="at least one curve"):
        draw_curves({}, {}, "standard")
