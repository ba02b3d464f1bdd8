"""Write the tables of README and docs from the committed records: ``python -m benchmarks.tables``.

A page holds a table between ``<!-- NAME -->`` and ``<!-- /NAME -->``; what stands there is replaced. Tables
of records that are not there are left as they are. No figure of a table is ever typed by hand.
"""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

RESULTS = Path("docs/results")
GROUPS = {
    "styles=same": "same style",
    "styles=cross": "cross style",
    "target_style=flat": "to flat",
    "target_style=shaded": "to shaded",
    "target_style=sketch": "to sketch",
    "target_style=painting": "to painting",
    "viewpoint_variation=0": "viewpoint alike",
    "viewpoint_variation=1": "turned",
    "viewpoint_variation=2": "mirrored",
    "truncation=0": "not truncated",
    "truncation=3": "both truncated",
    "occlusion=0": "not occluded",
}
Row = dict[str, Any]


def markdown(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table whose first column is text and whose others are numbers."""
    lines = [list(head), ["---", *["---:"] * (len(head) - 1)], *[[str(c) for c in row] for row in rows]]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def read(name: str) -> list[Row]:
    """Records of a file of ``docs/results``; none where it is not there."""
    path = RESULTS / f"{name}.json"
    if not path.exists():
        return []
    found = json.loads(path.read_text())
    rows: list[Row] = found["records"] if isinstance(found, dict) else found
    return rows


def spread(rows: Iterable[Row], **wanted: object) -> str:
    """Mean ± sample standard deviation over seeds of the records with these values."""
    values = [r["value"] for r in rows if all(r.get(key) == value for key, value in wanted.items())]
    if not values:
        return ""
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.mean(values):.1f} ± {deviation:.1f}"


def lead(rows: Iterable[Row], **wanted: object) -> str:
    """A difference with its interval."""
    for r in rows:
        if all(r.get(key) == value for key, value in wanted.items()):
            low, high = r["interval95"]
            return f"{r['difference']:+.1f} [{low:+.1f}, {high:+.1f}]"
    return ""


def correspondence() -> str:
    """The methods under protocol `standard`, and prompt fitting beside DIFT by group of pairs."""
    records, compared = read("partworld"), read("partworld_comparisons")
    main = {"task": "correspondence", "dataset": "partworld", "group": None}
    methods = list(dict.fromkeys(r["method"] for r in records if r["task"] == "correspondence"))
    rows = [
        [
            method,
            spread(records, method=method, metric="pck@0.10", **main),
            spread(records, method=method, metric="pck@0.05", **main),
            lead(compared, against=method, metric="pck@0.10", dataset="partworld"),
            spread(records, method=method, metric="pck@0.10", **{**main, "dataset": "partworld_cross"}),
        ]
        for method in methods
    ]
    head = ["method", "PCK@0.10", "PCK@0.05", "prompt_fit's lead at 0.10", "PCK@0.10, cross-category"]
    groups = [
        [
            text,
            *(
                spread(records, method=m, metric="pck@0.10", **{**main, "group": group})
                for m in ("prompt_fit", "dift")
            ),
            next(r["num_items"] for r in records if r.get("group") == group and r["dataset"] == "partworld"),
        ]
        for group, text in GROUPS.items()
    ]
    by_group = markdown(["pairs", "prompt_fit", "dift", "number of pairs"], groups)
    return (
        "**Correspondence**, protocol `standard`, percent: 252 pairs of one category, 40 of two.\n\n"
        + markdown(head, rows)
        + "\nPCK@0.10 by group of pairs (style of the two pictures; difficulty as in SPair-71k):\n\n"
        + by_group
    )


def segmentation() -> str:
    """The groupers under protocol `per_image`."""
    records, compared = read("partworld"), read("partworld_comparisons")
    main = {"task": "segmentation", "dataset": "partworld", "protocol": "per_image", "group": None}
    rows = [
        [
            method,
            spread(records, method=method, metric="miou", **main),
            spread(records, method=method, metric="accuracy", **main),
            lead(compared, against=method, metric="miou", task="segmentation", protocol="per_image"),
        ]
        for method in groupers(records)
    ]
    return (
        "**Segmentation**, protocol `per_image`, percent: 90 pictures; `kmeans_pixels` gets as many "
        "segments as diffseg found, `kmeans_s` as many as the picture has classes.\n\n"
        + markdown(["method", "mIoU", "accuracy", "diffseg's lead in mIoU"], rows)
    )


def groupers(records: Iterable[Row]) -> list[str]:
    """Names of the segmentation methods in the order of the run."""
    return list(dict.fromkeys(r["method"] for r in records if r["task"] == "segmentation"))


def groupers_by_protocol() -> str:
    """mIoU of every grouper under every protocol, and in every style of drawing."""
    records = [r for r in read("partworld") if r["task"] == "segmentation"]
    protocols = list(dict.fromkeys(r["protocol"] for r in records))
    styles = ["flat", "shaded", "sketch", "painting"]
    rows = [
        [
            method,
            *(spread(records, method=method, metric="miou", protocol=p, group=None) for p in protocols),
            *(
                spread(records, method=method, metric="miou", protocol="per_image", group=f"style={style}")
                for style in styles
            ),
        ]
        for method in groupers(records)
    ]
    return markdown(["method", *(f"`{p}`" for p in protocols), *styles], rows)


def speed() -> str:
    """Every mode: seconds and FLOPs against `plain`, and what it costs in PCK."""
    fit, quality = read("bench_fit"), {r["mode"]: r for r in read("fast_modes")}
    rows = []
    for r in fit:
        q = quality.get("exact" if r["mode"] in ("plain", "exact_fp32") else r["mode"], {})
        own = q.get("mode") == r["mode"]
        loss = (
            f"{q['difference']:+.1f} [{q['interval95'][0]:+.1f}, {q['interval95'][1]:+.1f}]"
            if own and "difference" in q
            else ""
        )
        rows.append(
            [
                f"`{r['mode']}`",
                r["dtype"],
                f"{1000 * r['seconds_per_query']:.0f}",
                f"{r['ratio_to_plain']:.1f}",
                f"{1 / r['flops_ratio']:.1f}",
                f"{r['matmul_ceiling_share_fit']:.0%}",
                f"{q['pck']:.1f}" if own else "",
                loss,
            ]
        )
    head = ["mode", "precision", "ms a query", "times faster", "times fewer FLOPs", "share of matmul ceiling"]
    return markdown([*head, "PCK@0.10 (`standard`)", "difference to `exact`"], rows)


def variants() -> str:
    """The attention variants on val, with the layers that are fitted and read."""
    found: dict[tuple[str, str, str], dict[str, float]] = {}
    for r in read("attention_variants"):
        if r["split"] == "val":
            layers = ", ".join(map(str, r["layers"]))
            found.setdefault((layers, r["attention"], r["settings"]), {})[r["metric"]] = r["value"]
    order = sorted(found.items(), key=lambda item: (len(item[0][0]), -item[1]["pck@0.10"]))
    rows = [
        [
            f"`{name}`{f', {settings}' if settings else ''}",
            layers,
            f"{v['pck@0.10']:.1f}",
            f"{v['pck@0.05']:.1f}",
        ]
        for (layers, name, settings), v in order
    ]
    return markdown(["`attention=`", "layers", "PCK@0.10", "PCK@0.05"], rows)


def growth() -> str:
    """Milliseconds of an Adam step and of reading one target, for all queries together."""
    found: dict[tuple[int, int, int], dict[str, Row]] = {}
    for r in read("bench_growth"):
        found.setdefault((r["queries"], r["rounds"], r["image_size"]), {})[r["mode"]] = r
    rows = [
        [
            f"{queries} queries, {rounds} rounds, {side} pixels",
            *(
                f"{1000 * modes[mode][what]:.0f}"
                for mode in ("exact", "packed")
                for what in ("seconds_per_step", "seconds_transfer")
            ),
        ]
        for (queries, rounds, side), modes in found.items()
    ]
    return markdown(["", "`exact`, step", "reading", "`packed`, step", "reading"], rows)


def fill(page: Path, name: str, text: str) -> None:
    """Put a table between its marks."""
    old = page.read_text()
    marks = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    if not marks.search(old):
        raise SystemExit(f"expected <!-- {name} --> and <!-- /{name} --> in {page}, found none")
    page.write_text(marks.sub(lambda m: m.group(1) + text + m.group(2), old))


def main() -> None:
    """Fill all tables."""
    if read("partworld"):
        fill(Path("README.md"), "correspondence", correspondence())
        fill(Path("README.md"), "segmentation", segmentation())
        fill(Path("docs/segmentation.md"), "groupers", groupers_by_protocol())
    if read("bench_fit"):
        fill(Path("docs/performance.md"), "speed", speed())
    if read("attention_variants"):
        fill(Path("docs/attention.md"), "variants", variants())
    if read("bench_growth"):
        fill(Path("docs/performance.md"), "growth", growth())


if __name__ == "__main__":
    main()
