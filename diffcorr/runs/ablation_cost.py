"""What the settings of a sweep cost: seconds that runs recorded, and FLOPs that their settings imply."""

from __future__ import annotations

import json
import logging
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from diffcorr.backbones.base import Backbone
from diffcorr.config import instantiate
from diffcorr.correspondence.config import FitConfig, TransferConfig
from diffcorr.correspondence.flops import Pieces, count_pieces, fit_flops, transfer_flops
from diffcorr.errors import DiffcorrError
from diffcorr.runs.ablation_runs import SweptRun
from diffcorr.runs.ablation_scores import Ablation, Setting
from diffcorr.runs.stored import option_of
from diffcorr.runs.timings import Timing, read_timings
from diffcorr.types import PairDataset

log = logging.getLogger(__name__)
PROMPT_FIT = "diffcorr.correspondence.PromptFit"


@dataclass(frozen=True)
class Cost:
    """Of one run, mean over the runs of a setting; None where it is not known.

    Attributes:
        fit_seconds: of all fits, as if none had been stored before; 0 where nothing is fitted. Of all cores
            together where the run was on a CPU, else of the wall.
        read_seconds: of all predictions, likewise.
        tflop: of both, in 10^12 operations, counted from the settings of prompt fitting.
    """

    fit_seconds: float | None
    read_seconds: float | None
    tflop: float | None

    @property
    def seconds(self) -> float | None:
        """Of all fits and predictions."""
        parts = (self.fit_seconds, self.read_seconds)
        return None if None in parts else sum(part for part in parts if part is not None)


def costs(ablation: Ablation, flops: bool = True) -> dict[int, Cost]:
    """The cost of each complete setting, by its place in ``ablation.settings``.

    A fit that a run took over from another one counts with the seconds an item that it took there.

    Args:
        ablation: the scores.
        flops: whether to count FLOPs, for which the model is built.

    Raises:
        StoreError: the timings of a run are damaged.
    """
    timings = {run.folder: read_timings(run.folder) for run in ablation.sweep.runs}
    everything = [one for rows in timings.values() for one in rows]
    rates = {cpu: _rates(everything, cpu) for cpu in (True, False)}
    counter = _Counter()
    found = {}
    for place, setting in enumerate(ablation.settings):
        if not setting.found:
            continue
        known = [_seconds(timings[r.folder], rates[on_cpu(r)], _scored(ablation, r)) for r in setting.runs]
        counts = [counter.tflop(run, ablation.data(setting)) if flops else None for run in setting.runs]
        fits, reads = zip(*known, strict=True)
        found[place] = Cost(_mean(fits), _mean(reads), _mean(counts) if _own(ablation, setting) else None)
    return found


def on_cpu(run: SweptRun) -> bool:
    """Whether a run had no GPU, so that what its cores did is what it cost, whatever else they did."""
    return run.about.get("device") == "cpu"


def _own(ablation: Ablation, setting: Setting) -> bool:
    """Whether the method that is scored is the one that the runs configure."""
    return all(_scored(ablation, run) == _method(run) for run in setting.runs)


def _method(run: SweptRun) -> str:
    return str(run.config["method.name"])


def _scored(ablation: Ablation, run: SweptRun) -> str:
    return ablation.method or _method(run)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if len(known) == len(values) else None


def _rates(timings: Sequence[Timing], cpu: bool) -> dict[tuple[str, str], float]:
    """Seconds an item of each (stage, key), of all cores or of the wall, over all sessions of all runs."""
    seconds: defaultdict[tuple[str, str], float] = defaultdict(float)
    items: defaultdict[tuple[str, str], int] = defaultdict(int)
    for one in timings:
        if one.items:
            seconds[one.stage, one.key] += one.cpu_seconds if cpu else one.seconds
            items[one.stage, one.key] += one.items
    return {key: seconds[key] / items[key] for key in items}


def _seconds(
    timings: Sequence[Timing], rates: dict[tuple[str, str], float], method: str
) -> tuple[float | None, float | None]:
    """Seconds of all fits and of all predictions of a run."""
    totals = {(one.stage, one.key): one.total for one in timings if one.method == method}
    found: dict[str, float | None] = {"fit": 0.0, "predict": 0.0}
    for (stage, key), total in totals.items():
        rate, so_far = rates.get((stage, key)), found[stage]
        found[stage] = None if rate is None or so_far is None else so_far + rate * total
    if not any(stage == "predict" for stage, _ in totals):
        return None, None
    return found["fit"], found["predict"]


class _Counter:
    """FLOPs of runs; models are built and their pieces counted once."""

    def __init__(self) -> None:
        self._backbones: dict[str, Backbone | None] = {}
        self._pieces: dict[str, Pieces] = {}

    def tflop(self, run: SweptRun, data: Any) -> float | None:
        """Of fitting all queries of the pairs and reading all pairs; None where it cannot be told."""
        method = run.nodes["method"]
        if method.get("_target_") != PROMPT_FIT or not isinstance(data, PairDataset):
            return None
        try:
            fit, read = FitConfig(**_plain(method["fit"])), TransferConfig(**_plain(method["transfer"]))
            backbone = self._backbone(run.nodes["backbone"])
            if backbone is None:
                return None
            ahead = self._count(backbone, run, fit)
            behind = self._count(backbone, run, read)
        except (DiffcorrError, TypeError) as error:  # a setting that this version does not know
            log.info("FLOPs of %s cannot be told: %s", run.name, error)
            return None
        queries = {query.id: query.image_id for pair in data.pairs for query in pair.queries()}
        of_images = [list(queries.values()).count(image_id) for image_id in dict.fromkeys(queries.values())]
        points = [len(pair.keypoints) for pair in data.pairs]
        fitting = fit_flops(backbone, ahead, fit, of_images)
        return (fitting + transfer_flops(backbone, behind, fit, read, points)) / 1e12

    def _backbone(self, node: dict[str, Any]) -> Backbone | None:
        key = json.dumps(node, sort_keys=True)
        if key not in self._backbones:
            try:
                known = option_of("backbone", node) is not None
                self._backbones[key] = instantiate({**node, "device": "cpu"}) if known else None
            except (DiffcorrError, OSError) as error:
                log.info("FLOPs cannot be told: %s", error)
                self._backbones[key] = None
        return self._backbones[key]

    def _count(self, backbone: Backbone, run: SweptRun, config: FitConfig | TransferConfig) -> Pieces:
        key = json.dumps([run.nodes["backbone"], config.layers, config.token], sort_keys=True, default=list)
        if key not in self._pieces:
            self._pieces[key] = count_pieces(backbone, config.layers, config.token, config.timestep)
        return self._pieces[key]


def _plain(node: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in node.items() if key != "_target_"}
