"""The figures of a sweep, and which settings no other beats."""

import random

import pytest

from diffcorr.errors import ProtocolError
from diffcorr.reports.ablation import Mark, draw_costs, draw_sweep, frontier


def test_the_frontier_is_what_no_other_beats() -> None:
    """Against the definition, pair by pair."""
    rng = random.Random(0)
    for _ in range(50):
        points = {str(n): (float(rng.randint(1, 6)), float(rng.randint(1, 6))) for n in range(8)}
        found = frontier(points)
        values = {points[name] for name in found}
        beaten = {
            (cost, score)
            for cost, score in points.values()
            if any(c <= cost and s >= score and (c, s) != (cost, score) for c, s in points.values())
        }
        assert values == set(points.values()) - beaten
        assert len(values) == len(found)  # of equals one
        assert [points[name][0] for name in found] == sorted(points[name][0] for name in found)


def test_marks_stand_where_their_scores_are() -> None:
    lines = {
        "rounds=1": [Mark(30, 25, 35), None, Mark(20, 15, 26)],
        "rounds=2": [None, Mark(40, 38, 41), None],
    }
    figure = draw_sweep(lines, ["0.1", "$x$", "0.3"], "method.fit.sigma", "pck in %, protocol “p”", "$x$")
    (axes,) = figure.axes
    drawn = [line for line in axes.lines if line.get_marker() == "o"]
    assert [list(line.get_ydata()) for line in drawn] == [[30, 20], [40]]
    assert [round(x) for x in drawn[0].get_xdata()] == [0, 2]
    bars = [tuple(line.get_ydata()) for line in axes.lines if line.get_marker() != "o"]
    assert bars == [(25, 35), (15, 26), (38, 41)]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["0.1", "$x$", "0.3"]
    assert "protocol “p”" in axes.get_ylabel()
    with pytest.raises(ProtocolError, match="found none"):
        draw_sweep({"": [None]}, ["1"], "key", "pck")


def test_settings_that_none_beats_are_listed() -> None:
    marks = {"a": (1.0, Mark(10, 9, 11)), "b": (50.0, Mark(20, 19, 21)), "c": (60.0, Mark(15, 14, 16))}
    figure = draw_costs(marks, "seconds", "pck")
    (axes,) = figure.axes
    assert [text.get_text() for text in figure.texts] == ["1  a", "2  b"]
    assert [text.xy for text in axes.texts] == [(1.0, 10), (50.0, 20)]
    assert axes.get_xscale() == "log"
    with pytest.raises(ProtocolError, match="only finished runs"):
        draw_costs({}, "seconds", "pck")
