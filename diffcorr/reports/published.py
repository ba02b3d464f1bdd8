"""Numbers of papers, each with what it was measured by: ``published.json`` beside this file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from diffcorr.metrics import POINT_PROTOCOLS
from diffcorr.reports.page import Block, Points, Table, Text


@dataclass(frozen=True)
class Published:
    """One number of a paper.

    Attributes:
        method: as the paper calls it.
        dataset: name of the data set in this package.
        split: its split.
        metric: such as ``pck@0.10``.
        value: in percent.
        protocol: the preset that it was measured under; None where that is not known.
        measured: what is known of how it was measured, where that is less than a preset.
        labels: what the method was trained on: ``none``, ``images, no keypoints`` or ``keypoints``.
        paper: who and where; None where the number is known from later papers alone.
        link: to the paper.
        table: where in the paper.
    """

    method: str
    dataset: str
    split: str
    metric: str
    value: float
    labels: str
    protocol: str | None = None
    measured: str | None = None
    paper: str | None = None
    link: str | None = None
    table: str | None = None

    @property
    def comparable(self) -> bool:
        """Whether it may stand in a column: it is known to have been measured under a preset."""
        return self.protocol in POINT_PROTOCOLS and self.measured is None

    @property
    def source(self) -> str:
        """Where it stands, with a link."""
        if self.paper is None:
            return "known from later papers"
        name = f"[{self.paper}]({self.link})" if self.link else self.paper
        return f"{name}, {self.table}" if self.table else name


@lru_cache(maxsize=1)
def published() -> tuple[Published, ...]:
    """All numbers, in the order of the file."""
    rows = json.loads((Path(__file__).parent / "published.json").read_text(encoding="utf-8"))
    return tuple(Published(**row) for row in rows)


Column = tuple[str, str]
"""(metric, protocol)."""


def published_blocks(
    rows: Sequence[Published], own: Mapping[str, Mapping[Column, str]] | None = None
) -> Iterator[Block]:
    """A table with a column for each metric and protocol, and what cannot be compared as a list.

    Args:
        rows: numbers of one data set and split.
        own: of methods of one's own the scores on the same pairs, as they are to be printed.
    """
    fitting = [row for row in rows if row.comparable]
    columns = list(dict.fromkeys((row.metric, str(row.protocol)) for row in fitting))
    lines = [[name, "", "", *(found.get(c, "") for c in columns)] for name, found in (own or {}).items()]
    printed: dict[tuple[str, str, str], dict[Column, str]] = {}
    for row in fitting:
        about = (row.method, row.labels, row.source)
        printed.setdefault(about, {})[row.metric, str(row.protocol)] = f"{row.value:.1f}"
    lines += [[*about, *(found.get(c, "") for c in columns)] for about, found in printed.items()]
    if columns:
        head = ["method", "trained on", "source", *(f"{metric} ({name})" for metric, name in columns)]
        yield Table(head, lines, 3)
    if alone := [row for row in rows if not row.comparable]:
        yield Text(
            "Printed without a protocol that is known in full; comparable with nothing above, nor with each "
            "other:"
        )
        yield Points([_say(row) for row in alone])


def _say(row: Published) -> str:
    known = row.measured or "protocol not known"
    if row.protocol and row.measured:
        known = f"as `{row.protocol}`, {row.measured}"
    trained = "" if row.labels == "none" else f", trained on {row.labels}"
    return f"{row.method}{trained}: {row.metric} {row.value:.1f}; {known}; {row.source}"
