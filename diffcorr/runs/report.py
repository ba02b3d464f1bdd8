"""The report of stored predictions: methods and protocols, curves, parts, pairs, published numbers."""

from __future__ import annotations

import json
import logging
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

import diffcorr
from diffcorr.errors import ProtocolError
from diffcorr.metrics import POINT_PROTOCOLS, Estimate, Interval, curve_area, pck_curve
from diffcorr.reports.curves import draw_curves
from diffcorr.reports.page import Block, Fold, Heading, Picture, Table, Text, markdown, write_page
from diffcorr.reports.published import published, published_blocks
from diffcorr.runs.chapter import METRIC, Chapter, read_chapter
from diffcorr.runs.report_details import pairs, parts
from diffcorr.runs.score import load_protocols, size_of
from diffcorr.runs.stored import StoredRun
from diffcorr.stores.files import write_atomic
from diffcorr.types import PairDataset

log = logging.getLogger(__name__)
PRESETS = list(POINT_PROTOCOLS)
"""What a report scores by default; the first of them is the one of curves, parts and pairs."""


_SAY = {"elsewhere": "predictions of other pairs of the run"}


def report_run(folder: Path, data: PairDataset, methods: Sequence[str], num_figures: int = 3) -> None:
    """Write the report of a run folder into it, with what else the folder holds where that is complete.

    Args:
        folder: of the run.
        data: the pairs that it has just been made on.
        methods: their methods.
        num_figures: as `write_report`.

    Raises:
        StoreError: the folder cannot be written.
    """
    run = StoredRun(folder)
    protocols = load_protocols(PRESETS)
    chapters = [read_chapter([run], data, protocols, methods=methods)]
    for other in run.data:
        if (other.name, other.split) != (data.name, data.split):
            try:
                chapters.append(read_chapter([run], other, protocols))
            except ProtocolError as error:
                log.info("the report leaves out %s %s: %s", other.name, other.split, error)
    page = write_report(chapters, folder / "report", num_figures)[1]
    log.info("all protocols, curves, parts and pairs: %s", page)


def write_report(chapters: Sequence[Chapter], folder: Path, num_figures: int = 3) -> list[Path]:
    """Write a report.

    Args:
        chapters: one for each data set.
        folder: receives ``report.md`` and ``report.html`` (which needs no other file), ``figures``, and the
            table of methods and protocols by itself as ``protocols.json`` and ``protocols.md``.
        num_figures: how many of the best and of the worst pairs are drawn.

    Returns:
        The pages and tables written.

    Raises:
        StoreError: the folder cannot be written.
    """
    names = " and ".join(f"{c.data.name} {c.data.split}" for c in chapters)
    blocks: list[Block] = []
    tables: list[Block] = [Heading(f"Protocols: {names}", 1)]
    for chapter in chapters:
        heading = Heading(f"{chapter.data.name}, {chapter.data.split}")
        table = [heading, *_about(chapter), *_protocols(chapter)]
        tables += table
        blocks += [
            *table,
            *_leads(chapter),
            *_curves(chapter),
            *parts(chapter),
            *pairs(chapter, num_figures),
            *_beside(chapter),
        ]
    blocks += _elsewhere([c.data.name for c in chapters])
    written = write_page(f"Correspondence: {names}", blocks, folder)
    about = {"diffcorr": diffcorr.__version__, "data": [chapter.to_dict() for chapter in chapters]}
    for suffix, text in (("json", json.dumps(about, indent=1) + "\n"), ("md", markdown(tables))):
        path = folder / f"protocols.{suffix}"
        write_atomic(path, lambda to, text=text: to.write_text(text, encoding="utf-8"))  # type: ignore[misc]
        written.append(path)
    return written


def _about(chapter: Chapter) -> Iterator[Block]:
    columns = chapter.columns
    seeds = sorted({len(stored) for stored in chapter.methods.values()})
    models = f" Models: {', '.join(chapter.backbones)}." if chapter.backbones else ""
    yield Text(
        f"{len(columns.pairs):,} pairs with {len(columns.owner):,} keypoints of {len(columns.categories)} "
        f"categories; methods: {len(chapter.methods)}, seeds: {' to '.join(map(str, seeds))}.{models} Scores "
        "are PCK in percent, the mean over seeds, with the 95 % bootstrap interval over pairs. Every "
        "protocol scores the same stored predictions; docs/protocols.md says what each of them is."
    )
    rows = []
    for method, stored_of_seeds in chapter.methods.items():
        for stored in stored_of_seeds:
            handled = [f"{count} {_SAY.get(name, name)}" for name, count in stored.counts.items() if count]
            not_scored = [*handled, *(f"older configuration {name}" for name in stored.superseded)]
            size = [f"{count:,}" for count in size_of(stored.matched).values()]
            rows.append(
                [method, str(stored.seed), stored.config_hash, "; ".join(not_scored) or "none", *size]
            )
    head = ["method", "seed", "configuration", "left out or handled", "pairs", "points"]
    yield Fold("What the scores are over", [Table(head, rows, 4)])
    for name, reason in chapter.left_out.items():
        yield Text(f"Protocol `{name}` is left out: {reason}.")


def _protocols(chapter: Chapter) -> Iterator[Block]:
    """Methods x protocols, a table for each alpha that a protocol reports."""
    metrics = list(dict.fromkeys(metric for _, _, metric in chapter.keys))
    yield Heading("Methods and protocols", 3)
    yield from _table(chapter, metrics[0])
    if len(chapter.protocols) > 1:
        yield from _moved(chapter)
    if others := [block for metric in metrics[1:] for block in _table(chapter, metric)]:
        yield Fold("At other alphas", others)


def _table(chapter: Chapter, metric: str) -> Iterator[Block]:
    names = [name for name in chapter.protocols if (chapter.best, name, metric) in chapter.keys]
    moved = metric == METRIC and len(names) > 1
    rows = []
    for method in chapter.methods:
        cells = [_interval(chapter.estimate(method, name, metric)) for name in names]
        rows.append([method, *cells, *([f"{chapter.moved(method).points:.1f}"] if moved else [])])
    yield Text(f"{metric} under each protocol:")
    yield Table(["method", *names, *(["highest - lowest"] if moved else [])], rows)


def _moved(chapter: Chapter) -> Iterator[Block]:
    most = max(map(chapter.moved, chapter.methods), key=lambda one: one.points)
    said = (
        f"The choice of protocol alone moves the {METRIC} of the same predictions of `{most.method}` by "
        f"{most.points:.1f} points, from {most.low:.1f} (`{most.low_protocol}`) to {most.high:.1f} "
        f"(`{most.high_protocol}`)."
    )
    first = chapter.order(chapter.main.name)
    others = [f"`{name}`" for name in chapter.protocols if chapter.order(name) != first]
    if len(first) > 1 and others:
        said += (
            f" The methods come in another order than under `{chapter.main.name}` under {', '.join(others)}."
        )
    elif len(first) > 1:
        said += " The methods come in the same order under all of them."
    yield Text(said)


def _interval(one: Estimate) -> str:
    return f"{one.value:.1f} [{one.low:.1f}, {one.high:.1f}]"


def _leads(chapter: Chapter) -> Iterator[Block]:
    others = [method for method in chapter.methods if method != chapter.best]
    if not others:
        return
    yield Heading(f"Lead of {chapter.best}", 3)
    if not chapter.alike:
        yield Text("Points are left out of some methods that others are scored on: no differences are given.")
        return

    def say(lead: Interval | None) -> str:
        return "" if lead is None else f"{lead.difference:+.1f} [{lead.low:+.1f}, {lead.high:+.1f}]"

    rows = [[method, *(say(chapter.lead(method, name)) for name in chapter.protocols)] for method in others]
    yield Table(["over", *(f"{METRIC} ({name})" for name in chapter.protocols)], rows)
    yield Text(
        "Points of percent, with the 95 % interval of the difference when pairs are drawn anew for both."
    )


def _curves(chapter: Chapter) -> Iterator[Block]:
    protocol = chapter.main
    curves, areas = {}, {}
    for method, seeds in chapter.methods.items():
        drawn = [pck_curve(stored.matched, protocol) for stored in seeds]
        curves[method] = [
            (points[0].alpha, statistics.fmean(point.value for point in points))
            for points in zip(*drawn, strict=True)
        ]
        areas[method] = statistics.fmean(curve_area(stored.matched, protocol) for stored in seeds)
    yield Heading("PCK over alpha", 3)
    caption = f"PCK over alpha, protocol {protocol.name}, {chapter.data.name} {chapter.data.split}"
    yield Picture(f"curves-{chapter.data.name}", draw_curves(curves, areas, protocol.name), caption)
    rows = [[method, f"{areas[method]:.1f}"] for method in chapter.methods]
    yield Table(["method", f"mean PCK over alpha 0 to 0.2 ({protocol.name})"], rows)


def _beside(chapter: Chapter) -> Iterator[Block]:
    """Published numbers of the same data, each in the column of its own protocol."""
    rows = [r for r in published() if (r.dataset, r.split) == (chapter.data.name, chapter.data.split)]
    if not rows:
        return
    yield Heading("Published numbers", 3)
    official = getattr(getattr(chapter.data, "about", None), "num_pairs", {}).get(chapter.data.split)
    if official not in (None, len(chapter.columns.pairs)):
        yield Text(
            f"These {len(chapter.columns.pairs):,} pairs are not the {official:,} that papers score: the "
            "methods of this report do not stand beside them."
        )
        yield from published_blocks(rows)
        return
    own = {
        f"{method} (this report)": {
            (metric, name): _interval(chapter.estimate(of, name, metric))
            for of, name, metric in chapter.keys
            if of == method
        }
        for method in chapter.methods
    }
    yield from published_blocks(rows, own)


def _elsewhere(names: Sequence[str]) -> Iterator[Block]:
    """Published numbers of the data sets that the report is not about."""
    others = list(dict.fromkeys(row.dataset for row in published() if row.dataset not in names))
    if not others:
        return
    blocks: list[Block] = []
    for name in others:
        blocks += [Heading(name, 3), *published_blocks([r for r in published() if r.dataset == name])]
    yield Heading("Published numbers of other data sets")
    yield Text("None of them can be compared with a score above: other pictures, other pairs.")
    yield Fold(", ".join(others), blocks)
