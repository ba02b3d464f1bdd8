"""Results as Markdown tables: one row for each method, one column for each metric and protocol."""

from __future__ import annotations

from collections.abc import Iterable

from diffcorr.reports.summary import Score, summarise
from diffcorr.stores.records import MetricRecord

_HEAD = ("backbone", "data", "group", "method")


def results_table(records: Iterable[MetricRecord]) -> str:
    """Markdown tables of mean ± sample standard deviation over seeds, in percent, one for each task.

    Every metric's column names its protocol, and every cell stands for the number of items and seeds
    that its row says.

    Args:
        records: any number of records; a breakdown's groups become rows of their own.

    Returns:
        Markdown, ending in a line break; without records a table that says so.
    """
    by_task: dict[str, list[Score]] = {}
    for score in summarise(records):
        by_task.setdefault(score.setting.task, []).append(score)
    return "\n".join(_table(scores) for scores in by_task.values()) or "| no results |\n| --- |\n"


def _table(scores: Iterable[Score]) -> str:
    columns: dict[tuple[str, str], str] = {}
    rows: dict[tuple[str, ...], dict[tuple[str, str], str]] = {}
    for score in scores:
        setting = score.setting
        column = (score.metric, setting.protocol)
        columns[column] = f"{score.metric} ({setting.protocol})"
        size = f"{score.num_items} items, {len(score.values)} seed{'s' if len(score.values) > 1 else ''}"
        row = (setting.backbone, f"{setting.dataset} {setting.split}", setting.group, score.method, size)
        rows.setdefault(row, {})[column] = score.text
    has_groups = any(row[2] for row in rows)
    head = [name for name in _HEAD if name != "group" or has_groups] + list(columns.values()) + ["over"]
    lines = [head, ["---"] * (len(head) - len(columns) - 1) + ["---:"] * len(columns) + ["---"]]
    for names_and_size, cells in rows.items():
        *values, size = names_and_size
        names = [_escape(name) for index, name in enumerate(values) if index != 2 or has_groups]
        lines.append([*names, *(cells.get(column, "") for column in columns), size])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _escape(text: str) -> str:
    return text.replace("|", "\\|")
