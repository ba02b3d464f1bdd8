"""Where methods are right and wrong: parts of the data, and single pairs."""

from __future__ import annotations

import statistics
from collections.abc import Iterator

import numpy as np
import torch

from diffcorr.errors import DiffcorrError, ProtocolError
from diffcorr.metrics import Matched, Row, breakdown
from diffcorr.metrics.functional.pck import distances
from diffcorr.metrics.protocols import metric_name
from diffcorr.reports.matches import draw_matches
from diffcorr.reports.page import Block, Fold, Heading, Picture, Table, Text
from diffcorr.runs.chapter import Chapter

DIVISIONS = ("category", "part", "geometry", "visibility", "difficulty")
"""What every report tries; the tags of a data set follow, and single keypoints in a fold."""


def parts(chapter: Chapter) -> Iterator[Block]:
    """Scores of parts under the main protocol, at its first alpha."""
    metric = metric_name(chapter.main.alphas[0])
    tags = sorted({tag for pair in chapter.columns.pairs for tag in pair.tags})
    yield Heading("Parts", 3)
    yield Text(
        f"{metric} under `{chapter.main.name}`; a part is scored as if there were no other keypoints. "
        "`part` is what a keypoint is, without its side; `geometry` divides keypoints with a look-alike on "
        "the other side from the others."
    )
    shown: set[str] = set()
    for by in (*DIVISIONS, *tags, "keypoint"):
        for name, table in _part_tables(chapter, by, metric):
            if name not in shown:  # flags of difficulty are tags too
                shown.add(name)
                yield Fold(f"By keypoint ({len(table.rows)})", [table]) if by == "keypoint" else table


def _part_tables(chapter: Chapter, by: str, metric: str) -> Iterator[tuple[str, Table]]:
    scores: dict[tuple[str, str], dict[str, list[Row]]] = {}
    for method, seeds in chapter.methods.items():
        for stored in seeds:
            try:
                rows = breakdown(stored.matched, chapter.main, by)
            except DiffcorrError:  # pairs that cannot be divided so have no such table
                return
            for row in rows:
                if row.metric == metric:
                    scores.setdefault((row.by, row.group), {}).setdefault(method, []).append(row)
    for name in dict.fromkeys(name for name, _ in scores):
        lines = []
        for (of, group), found in scores.items():
            if of == name:
                largest = max(
                    (row for rows in found.values() for row in rows), key=lambda row: row.num_points
                )
                values = [
                    f"{statistics.fmean(r.value for r in found[m]):.1f}" if m in found else ""
                    for m in chapter.methods
                ]
                lines.append([group, *values, str(largest.num_pairs), str(largest.num_points)])
        yield name, Table([name, *chapter.methods, "pairs", "points"], lines)


def pairs(chapter: Chapter, num_figures: int) -> Iterator[Block]:
    """The worst and the best pairs of the best method's first seed."""
    matched = chapter.methods[chapter.best][0].matched
    order = by_error(chapter, matched)
    count = min(num_figures, len(order) // 2 or len(order))
    if not count:
        return
    yield Heading(f"Worst and best pairs of {chapter.best}", 3)
    yield Text(
        f"By the mean error of their keypoints in threshold lengths of `{chapter.main.name}`, at most 1 "
        f"each; seed {chapter.methods[chapter.best][0].seed}."
    )
    for kind, places in (("worst", order[::-1][:count]), ("best", order[:count])):
        for number, place in enumerate(places, 1):
            try:
                yield _pair(chapter, matched, place, f"{kind}-{chapter.data.name}-{number}", kind)
            except DiffcorrError as error:
                yield Text(f"Pair `{chapter.columns.pairs[place].pair_id}` is not drawn: {error}.")


def by_error(chapter: Chapter, matched: Matched) -> list[int]:
    """Places of the pairs, the best first."""
    columns, protocol = chapter.columns, chapter.main
    owner = torch.from_numpy(columns.owner)
    scale = torch.from_numpy(protocol.scales(columns))[owner]
    error = distances(torch.from_numpy(matched.points), torch.from_numpy(columns.target), scale).numpy()
    error = np.nan_to_num(error / protocol.threshold_lengths(columns)[columns.owner], nan=1.0).clip(max=1.0)
    kept = matched.scored
    sums = np.bincount(columns.owner[kept], error[kept], minlength=len(columns.pairs))
    count = np.bincount(columns.owner[kept], minlength=len(columns.pairs))
    mean = np.divide(sums, count, out=np.full(len(sums), np.nan), where=count > 0)
    return [int(place) for place in np.argsort(mean, kind="stable") if count[place]]


def _pair(chapter: Chapter, matched: Matched, place: int, name: str, kind: str) -> Picture:
    pair, alpha = chapter.columns.pairs[place], chapter.main.alphas[0]
    start = chapter.columns.starts[place]
    points = matched.points[start : start + len(pair.keypoints)]
    drawn = np.flatnonzero(np.isfinite(points).all(1) & matched.scored[start : start + len(points)])
    if not len(drawn):
        raise ProtocolError("none of its keypoints has a prediction")
    figure = draw_matches(
        chapter.data.image(pair.source_id),
        chapter.data.image(pair.target_id),
        [pair.source_points[k] for k in drawn],
        points[drawn],
        truth=[pair.target_points[k] for k in drawn],
        threshold=chapter.main.radii(pair, alpha),
        names=[pair.keypoints[k] for k in drawn],
        title=f"{chapter.best}: {pair.category}",
        threshold_name=f"alpha {alpha:g}, protocol {chapter.main.name}",
    )
    return Picture(name, figure, f"{kind}: {pair.pair_id}")
