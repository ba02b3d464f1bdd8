"""Segmentation scores of papers, each with its protocol: ``published_segmentation.json`` beside this file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from diffcorr.errors import UnknownNameError
from diffcorr.metrics import MASK_PROTOCOLS
from diffcorr.reports.published import Published


@dataclass(frozen=True)
class PublishedMasks(Published):
    """One ``miou`` or ``accuracy`` of a paper; attributes as `Published`, protocols those of masks."""

    @property
    def comparable(self) -> bool:
        """Whether it may stand in a column: it is known to have been measured under a preset."""
        return self.protocol in MASK_PROTOCOLS and self.measured is None


@lru_cache(maxsize=1)
def published_segmentation() -> tuple[PublishedMasks, ...]:
    """All numbers, in the order of the file."""
    path = Path(__file__).parent / "published_segmentation.json"
    return tuple(PublishedMasks(**row) for row in json.loads(path.read_text(encoding="utf-8")))


def published_masks_table(dataset: str) -> str:
    """A Markdown table of the numbers on a data set: a row each method, a column each metric and protocol.

    What was matched image by image and what was matched once for the data set stand in columns of their own.
    Numbers that are not known to be comparable bear a note.

    Args:
        dataset: name of the data set in this package, such as ``coco_stuff``.

    Raises:
        UnknownNameError: there are none; lists the data sets that have some.
    """
    rows = [row for row in published_segmentation() if row.dataset == dataset]
    if not rows:
        known = dict.fromkeys(row.dataset for row in published_segmentation())
        raise UnknownNameError("data set with published segmentation scores", dataset, known)
    columns = list(dict.fromkeys((row.protocol, row.metric) for row in rows))
    cells: dict[tuple[str, str, str], dict[tuple[str | None, str], str]] = {}
    notes: list[str] = []
    for row in rows:
        mark = ""
        if row.measured:
            if row.measured not in notes:
                notes.append(row.measured)
            mark = f" [{notes.index(row.measured) + 1}]"
        cells.setdefault((row.method, row.labels, row.source), {})[row.protocol, row.metric] = (
            f"{row.value:.1f}{mark}"
        )
    head = ["method", "trained on", *(f"{metric} ({protocol})" for protocol, metric in columns), "source"]
    lines = [head, ["---", "---", *["---:"] * len(columns), "---"]]
    for (method, labels, source), values in cells.items():
        lines.append([method, labels, *(values.get(column, "") for column in columns), source])
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    return table + "".join(f"\n[{number}] {note}.\n" for number, note in enumerate(notes, 1))
