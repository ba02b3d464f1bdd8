"""Points as text: what is typed, and what a click appends."""

from __future__ import annotations

import re
from collections.abc import Sequence

from diffcorr.app.pictures import Picture
from diffcorr.data.geometry import check_inside
from diffcorr.errors import DiffcorrError, ImageError
from diffcorr.types import Point

MAX_POINTS = 64

_POINT = re.compile(r"\s*(-?\d+(?:\.\d+)?)\s*[,\s]\s*(-?\d+(?:\.\d+)?)\s*")


def parse_points(text: str) -> list[Point]:
    """``120,88`` in each line (or after a semicolon) as points.

    Raises:
        DiffcorrError: a line that is no point, or more than `MAX_POINTS`.
    """
    lines = [line for line in re.split(r"[\n;]", text or "") if line.strip()]
    if len(lines) > MAX_POINTS:
        raise DiffcorrError(
            f"expected at most {MAX_POINTS} points at once, found {len(lines)}: leave some out, or use "
            "Matcher in Python"
        )
    points = []
    for number, line in enumerate(lines, start=1):
        found = _POINT.fullmatch(line)
        if not found:
            told = f"{line.strip()!r} as line {number}"
            raise DiffcorrError(f"expected x,y in each line, such as 120,88, found {told}: correct it")
        points.append((float(found[1]), float(found[2])))
    return points


def check_points(points: Sequence[Point], picture: Picture) -> None:
    """Pass where all lie inside of the picture.

    Raises:
        ImageError: there are none, or one lies outside.
    """
    if not points:
        raise ImageError("expected at least one point, found none: click on the source, or type x,y")
    for number, point in enumerate(points, start=1):
        check_inside(point, picture.size, f"point {number}")


def say_points(points: Sequence[Point]) -> str:
    """The text of points, one in a line, to a tenth of a pixel."""
    return "\n".join(f"{round(x, 1):g},{round(y, 1):g}" for x, y in points)
