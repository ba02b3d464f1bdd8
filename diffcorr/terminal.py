"""What a terminal gets beside plain lines: colour and progress, and neither where nobody looks."""

from __future__ import annotations

import os
import shutil
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from diffcorr.correspondence.prompt_fit import FitProgress

CODES = {"red": "31", "green": "32", "yellow": "33", "bold": "1"}


def has_colour(stream: TextIO) -> bool:
    """Whether a stream is a terminal that wants colour (https://no-color.org)."""
    return stream.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"


def paint(text: str, colour: str, stream: TextIO) -> str:
    """The text in a colour of `CODES` where the stream has colour."""
    return f"\033[{CODES[colour]}m{text}\033[0m" if has_colour(stream) else text


class FitBar:
    """A line on standard error that tells how far a fit is; none where that is no terminal."""

    def __init__(self) -> None:
        self.stream = sys.stderr
        self.shown = self.stream.isatty()

    def __call__(self, at: FitProgress) -> None:
        """Draw the line anew; at the end remove it."""
        if not self.shown:
            return
        width = max(10, min(40, shutil.get_terminal_size().columns - 40))
        filled = width * at.done // max(1, at.total)
        line = f"fit [{'#' * filled}{'.' * (width - filled)}] {100 * at.done // max(1, at.total):3d} %"
        if at.loss == at.loss:  # not nan
            line += f"  loss {at.loss:.5f}"
        end = "\r\033[K" if at.done >= at.total else ""
        print(f"\r\033[K{line}{end}", end="", file=self.stream, flush=True)
