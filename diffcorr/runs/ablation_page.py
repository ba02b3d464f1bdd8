"""The page of an ablation report: scores over each swept value, over two of them, and against their cost."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from diffcorr.metrics import Estimate
from diffcorr.reports import draw_heat_table
from diffcorr.reports.ablation import Mark, draw_costs, draw_sweep
from diffcorr.reports.page import Block, Fold, Heading, Picture, Points, Table, Text
from diffcorr.runs.ablation_cost import Cost, costs, on_cpu
from diffcorr.runs.ablation_runs import is_number, say
from diffcorr.runs.ablation_scores import Ablation, Setting

MOST_LINES = 4
"""In a figure over one value, of settings that differ in others; beyond that their mean is drawn."""
SAME = 1.2
"""How far costs may lie apart and still be called the same."""


class AblationPage:
    """The blocks of a report."""

    def __init__(self, ablation: Ablation, flops: bool) -> None:
        self.ablation, self.sweep = ablation, ablation.sweep
        self.short = self.sweep.labels()
        self.costs: Mapping[int, Cost] = costs(ablation, flops)
        self.score = f"{ablation.metric} in %, protocol “{ablation.protocol}”"
        self.seconds = "core seconds" if all(map(on_cpu, self.sweep.runs)) else "seconds"

    def blocks(self) -> Iterator[Block]:
        """All of the page."""
        yield from self._about()
        for key in self.sweep.keys:
            yield from self._over(key)
        for row, column in combinations(self.sweep.keys, 2):
            yield from self._grid(row, column)
        yield from self._costs()
        yield Heading("All settings")
        yield self._table()

    def rows(self) -> list[dict[str, Any]]:
        """For machines: a row for each setting, rounded to a thousandth; empty where it is not known."""
        found = []
        for place, setting in enumerate(self.ablation.settings):
            row: dict[str, Any] = dict(zip(self.sweep.keys, map(say, setting.values), strict=True))
            row |= {"metric": self.ablation.metric, "protocol": self.ablation.protocol}
            names = ("value", "low", "high", "difference", "difference_low", "difference_high")
            row |= dict.fromkeys((*names, "num_items", "fit_seconds", "read_seconds", "tflop"), "")
            if setting.found:
                one, lead, cost = self.ablation.estimate(setting), self._lead(setting), self.costs[place]
                row |= dict(zip(names, map(_round, (one.value, one.low, one.high)), strict=False))
                if lead is not None:
                    row |= dict(zip(names[3:], map(_round, lead), strict=True))
                row["num_items"] = one.num_items
                known = (cost.fit_seconds, cost.read_seconds, cost.tflop)
                row |= zip(("fit_seconds", "read_seconds", "tflop"), map(_round, known), strict=True)
            row["num_runs"] = len(setting.runs)
            row["unfinished"] = "; ".join(setting.states)
            row["differs"] = "; ".join(f for run in setting.runs for f in self.sweep.flags[run.folder])
            row["folders"] = "; ".join(run.name for run in setting.runs)
            found.append(row)
        return found

    def _about(self) -> Iterator[Block]:
        ablation, runs = self.ablation, self.sweep.runs
        done = len(ablation.done)
        data = sorted(
            {f"{d.name} {d.split}" for setting in ablation.settings for d in [ablation.data(setting)]}
        )
        models = sorted({str(run.config.get("backbone.name")) for run in runs})
        methods = sorted({ablation.method or str(run.config.get("method.name")) for run in runs})
        items = sorted({ablation.estimate(setting).num_items for setting in ablation.done})
        kind = "pairs" if ablation.task == "correspondence" else "images"
        size = " or ".join(map(str, items)) or "no"
        yield Text(
            f"{len(runs)} runs of {len(ablation.settings)} settings, {done} of them complete: "
            f"{', '.join(methods)} on {', '.join(data)} ({size} {kind}), model {', '.join(models)}. "
            f"Scores are {ablation.metric} in percent under protocol `{ablation.protocol}` with 95 % "
            f"bootstrap intervals over {kind}; differences are paired: the same {kind} are drawn for both."
        )
        if self.sweep.keys and ablation.reference is not None:
            yield Text(f"Reference: {self._name(ablation.reference)}.")
        states = [state for setting in ablation.settings for state in setting.states]
        if states:
            yield Text("Not complete, and not scored:")
            yield Points(states)
        flagged = {run.name: flags for run in runs if (flags := self.sweep.flags[run.folder])}
        if flagged:
            yield Text("These runs differ from the others in more than the swept keys:")
            yield Points([f"{name}: {'; '.join(flags)}" for name, flags in flagged.items()])

    def _over(self, key: str) -> Iterator[Block]:
        """Table and figure over one key."""
        values = self.sweep.in_order(key)
        texts = list(map(say, values))
        lines = self._lines(key, texts)
        if not lines:
            return
        label = self.short[key]
        yield Heading(f"Over {label}")
        averaged = len(lines) > MOST_LINES
        if averaged:
            complete = [line for line in lines.values() if all(line)]
            if not complete or key.startswith("data"):
                return
            yield Text(f"The mean over {len(complete)} combinations of the other keys, run at every value.")
            columns = [[line[place] for line in complete] for place in range(len(texts))]
            drawn: dict[str, list[Mark | None]] = {
                "": [_mark(self.ablation.estimate(_there(column))) for column in columns]
            }
        else:
            drawn = {
                name: [_mark(self.ablation.estimate(one)) if one else None for one in line]
                for name, line in lines.items()
            }
        shared = self.ablation.reference
        reference = say(shared.values[self.sweep.keys.index(key)]) if shared is not None else None
        figure = draw_sweep(drawn, texts, key, self.score, reference, all(map(is_number, values)))
        yield Picture(f"over-{label}", figure, f"{self.score} over {key}")
        if len(self.sweep.keys) == 1:  # the table of all settings says the same
            return
        rows = [
            [text, *(_say_mark(marks[place]) for marks in drawn.values())] for place, text in enumerate(texts)
        ]
        yield Table([label, *(name or self.ablation.metric for name in drawn)], rows)

    def _lines(self, key: str, texts: Sequence[str]) -> dict[str, list[Setting | None]]:
        """Settings that differ in one key alone, by what they share; lines of one value are left out."""
        place = self.sweep.keys.index(key)
        lines: dict[tuple[str, ...], list[Setting | None]] = {}
        for setting in self.ablation.done:
            others = [
                f"{self.short[k]}={say(v)}" for k, v in zip(self.sweep.keys, setting.values, strict=True)
            ]
            data = "" if key.startswith("data") else setting.data
            shared = (data, *others[:place], *others[place + 1 :])
            line = lines.setdefault(shared, [None] * len(texts))
            line[texts.index(say(setting.values[place]))] = setting
        kept = {shared: line for shared, line in lines.items() if sum(map(bool, line)) > 1}
        return {", ".join(shared[1:]): line for shared, line in kept.items()}

    def _grid(self, row: str, column: str) -> Iterator[Block]:
        """Heat map over two keys, mean over the others."""
        places = self.sweep.keys.index(row), self.sweep.keys.index(column)
        rows, columns = ([say(value) for value in self.sweep.in_order(key)] for key in (row, column))
        cells: dict[tuple[str, str], list[Setting]] = {}
        for setting in self.ablation.done:
            cells.setdefault((say(setting.values[places[0]]), say(setting.values[places[1]])), []).append(
                setting
            )
        if len(cells) < max(4, len(rows) * len(columns) / 2):  # no grid was swept
            return
        scores = np.full((len(rows), len(columns)), np.nan)
        for (r, c), settings in cells.items():
            own = [self.ablation.estimate(one).value for one in settings]
            scores[rows.index(r), columns.index(c)] = float(np.mean(own))
        names = self.short[row], self.short[column]
        named = [f"{names[0]} = {value}" for value in rows]
        figure = draw_heat_table(scores, named, columns, self.score, note=f"columns: {names[1]}")
        yield Heading(f"Over {names[0]} and {names[1]}")
        caption = f"{self.score} over {row} and {column}"
        yield Picture(f"grid-{names[0]}-{names[1]}", figure, caption)

    def _costs(self) -> Iterator[Block]:
        """Score against seconds and FLOPs."""
        settings = self.ablation.settings
        kinds = {
            self.seconds: {place: cost.seconds for place, cost in self.costs.items()},
            "TFLOP": {place: cost.tflop for place, cost in self.costs.items()},
        }
        blocks: list[Block] = []
        for unit, known in kinds.items():
            marks = {
                self._name(settings[place]): (value, _mark(self.ablation.estimate(settings[place])))
                for place, value in known.items()
                if value
            }
            if len(marks) < 2:
                continue
            least, most = (bound(value for value, _ in marks.values()) for bound in (min, max))
            if most < SAME * least:
                blocks.append(Text(f"All settings cost about the same: {least:.3g} to {most:.3g} {unit}."))
                continue
            figure = draw_costs(marks, f"{unit} a run, fits and readings", self.score)
            name = "costs-seconds" if unit == self.seconds else "costs-flops"
            blocks.append(Picture(name, figure, f"{self.score} against {unit} of a whole run"))
        if blocks:
            yield Heading("Quality against cost")
            yield Text(
                "Of a whole run, as if nothing had been stored: a fit that was taken over from another "
                f"run counts with what it took there. {self.seconds.capitalize()} are measured; FLOPs are "
                "counted from the settings (encoder and passes of the model)."
            )
            yield from blocks

    def _table(self) -> Block:
        head = [self.short[key] for key in self.sweep.keys]
        names = len(head) or 1
        head = head or ["setting"]
        head += [self.ablation.metric, "difference", f"{self.seconds}: fit", "read", "TFLOP"]
        rows = []
        for place, setting in enumerate(self.ablation.settings):
            cells = [say(value) for value in setting.values] or [setting.runs[0].name]
            if any(self.sweep.flags[run.folder] for run in setting.runs):
                cells[0] += " *"
            if setting.found:
                lead, cost = self._lead(setting), self.costs[place]
                cells += [
                    _say_mark(_mark(self.ablation.estimate(setting))),
                    "reference"
                    if setting is self.ablation.reference
                    else ""
                    if lead is None
                    else f"{lead[0]:+.1f} [{lead[1]:+.1f}, {lead[2]:+.1f}]",
                    *(
                        "" if v is None else f"{v:.3g}"
                        for v in (cost.fit_seconds, cost.read_seconds, cost.tflop)
                    ),
                ]
            else:
                cells += ["not complete", "", "", "", ""]
            rows.append(cells)
        table = Table(head, rows, names)
        return table if len(rows) <= 40 else Fold(f"{len(rows)} settings", [table])

    def _lead(self, setting: Setting) -> tuple[float, float, float] | None:
        lead = self.ablation.difference(setting)
        return None if lead is None else (lead.difference, lead.low, lead.high)

    def _name(self, setting: Setting) -> str:
        parts = zip(self.sweep.keys, setting.values, strict=True)
        return ", ".join(f"{self.short[key]}={say(value)}" for key, value in parts) or setting.runs[0].name


def _there(settings: Sequence[Setting | None]) -> list[Setting]:
    return [setting for setting in settings if setting is not None]


def _mark(one: Estimate) -> Mark:
    return Mark(one.value, one.low, one.high)


def _say_mark(mark: Mark | None) -> str:
    return "" if mark is None else f"{mark.value:.1f} [{mark.low:.1f}, {mark.high:.1f}]"


def _round(value: float | None) -> float | str:
    return "" if value is None else round(value, 3)
