"""Scores of the settings of a sweep, from what their runs have stored: no model runs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow.compute as pc
import torch
import yaml

from diffcorr.config import instantiate, load_option
from diffcorr.errors import DataError, DiffcorrError, StoreError
from diffcorr.metrics import (
    Estimate,
    Handling,
    Interval,
    MaskProtocol,
    Matched,
    PointProtocol,
    Resampled,
    match_table,
    pair_columns,
    resample_scores,
    score_masks,
    score_matched,
)
from diffcorr.metrics.functional.bootstrap import Array, drawn_totals, limits
from diffcorr.metrics.functional.segmentation import mean_iou_from_counts
from diffcorr.metrics.matching import keypoint_places
from diffcorr.runs.ablation_runs import Sweep, SweptRun, preset_values, say
from diffcorr.runs.common import FAILURES
from diffcorr.runs.stored import StoredRun, option_of
from diffcorr.stores.masks import MaskStore, StoredMasks
from diffcorr.types import PairDataset, SegmentationDataset

Found = Matched | StoredMasks
"""What a run has predicted under one seed."""
METRICS = {"correspondence": "pck@0.10", "segmentation": "miou"}
"""The metric of a task where none is named."""


@dataclass
class Setting:
    """One combination of swept values.

    Attributes:
        values: of the swept keys, in their order.
        data: which list of items it was made on.
        runs: that have them; several where seeds are swept.
        found: what each run that is done has predicted, under each of its seeds.
        states: of each run that is not done, how far it is.
    """

    values: tuple[Any, ...]
    data: str
    runs: list[SweptRun] = field(default_factory=list)
    found: list[Found] = field(default_factory=list)
    states: list[str] = field(default_factory=list)


class Ablation:
    """A sweep with its scores.

    Args:
        sweep: the runs.
        metric: name of a metric of the protocol; None = pck@0.10 or miou.
        protocol: name of a protocol; None = that of the runs.
        method: name of a method that the runs have stored; None = the one that each is about.
        reference: values of swept keys, whose setting the others are compared to; None = the preset's own,
            or where these were not run the setting with the best score.

    Attributes:
        settings: in the order of the keys' values, complete or not.
        reference: the setting that others are compared to; None where none is complete.

    Raises:
        DataError: runs of several tasks, of a task without stored predictions, or of strange data; no setting
            has the values of `reference`.
    """

    def __init__(
        self,
        sweep: Sweep,
        metric: str | None = None,
        protocol: str | None = None,
        method: str | None = None,
        reference: Mapping[str, str] | None = None,
    ) -> None:
        tasks = sorted({run.task for run in sweep.runs})
        if len(tasks) > 1 or tasks[0] not in METRICS:
            raise DataError(
                f"expected runs of one task, {' or '.join(METRICS)}, found {', '.join(tasks)}: name "
                "their folders alone"
            )
        self.sweep, self.task, self.method = sweep, tasks[0], method
        self.metric = metric or METRICS[self.task]
        self.protocol = protocol or str(sweep.runs[0].config["protocol.name"])
        self._data: dict[str, Any] = {}
        found: dict[str, Setting] = {}
        for run in sweep.runs:
            values, data = sweep.values(run), json.dumps(run.nodes["data"], sort_keys=True)
            setting = found.setdefault(json.dumps([*map(say, values), data]), Setting(values, data))
            setting.runs.append(run)
            self._read(run, setting)
        order = [[say(value) for value in sweep.in_order(key)] for key in sweep.keys]
        self.settings = sorted(
            found.values(),
            key=lambda one: [names.index(say(v)) for names, v in zip(order, one.values, strict=True)],
        )
        self.done = [setting for setting in self.settings if setting.found]
        self.reference = self._reference(reference)

    def estimate(self, settings: Setting | Sequence[Setting]) -> Estimate:
        """Score of a setting (mean over its seeds) or mean over settings, percent, with its 95 % interval.

        Settings of several must be made on the same items.
        """
        drawn, places = self._places(settings)
        many = drawn.drawn[:, places].mean(1)
        value = float(drawn.values[places].mean())
        return Estimate(value, *limits(many), drawn.num_items).times(100)

    def difference(self, setting: Setting) -> Interval | None:
        """Setting minus `reference` with the paired 95 % interval, in points; None of it to itself, and where
        items differ.
        """
        if self.reference is None or setting is self.reference or setting.data != self.reference.data:
            return None
        drawn, (place,) = self._places(setting)
        return drawn.difference(place, self._places(self.reference)[1][0]).times(100)

    def data(self, setting: Setting) -> Any:
        """What its runs were made on."""
        return self._load(setting.data)

    def _places(self, settings: Setting | Sequence[Setting]) -> tuple[Resampled, list[int]]:
        wanted = [settings] if isinstance(settings, Setting) else list(settings)
        together = self._groups[wanted[0].data]
        assert all(one.data == wanted[0].data for one in wanted)
        return self._resampled[wanted[0].data], [together.index(one) for one in wanted]

    @cached_property
    def _groups(self) -> dict[str, list[Setting]]:
        names = dict.fromkeys(setting.data for setting in self.done)
        return {data: [setting for setting in self.done if setting.data == data] for data in names}

    @cached_property
    def _resampled(self) -> dict[str, Resampled]:
        scorer = instantiate(load_option("protocol", self.protocol))
        draw = _resample_points if self.task == "correspondence" else _resample_masks
        return {
            data: draw(settings, self._load(data), scorer, self.metric)
            for data, settings in self._groups.items()
        }

    def _read(self, run: SweptRun, setting: Setting) -> None:
        """Add what a run has predicted to its setting, or how far it is."""
        try:
            data = self._load(setting.data)
            method = self.method or str(run.config["method.name"])
            seeds = [int(seed) for seed in run.config.get("seeds") or [run.config["seed"]]]
            read = _read_points if self.task == "correspondence" else _read_masks
            setting.found += [read(run, data, method, seed) for seed in seeds]
        except _NotDoneError as state:
            setting.states.append(f"{run.name}: {state}")

    def _load(self, node: str) -> Any:
        if node not in self._data:
            values = json.loads(node)
            name = option_of("data", values)
            if name is None:
                raise DataError(f"expected data of configs/data, found {values.get('_target_')!r} in a run")
            self._data[node] = instantiate(values)
        return self._data[node]

    def _reference(self, given: Mapping[str, str] | None) -> Setting | None:
        if given is not None:
            wanted = {key: say(yaml.safe_load(value)) for key, value in given.items()}
            for setting in self.settings:
                has = dict(zip(self.sweep.keys, map(say, setting.values), strict=True))
                if all(has.get(key) == value for key, value in wanted.items()):
                    return setting if setting.found else None
            there = {key: list(map(say, self.sweep.in_order(key))) for key in self.sweep.keys}
            raise DataError(f"expected a setting with {wanted} as reference, found none among {there}")
        preset = preset_values(self.sweep)
        texts = None if preset is None else list(map(say, preset))
        for setting in self.done:
            if list(map(say, setting.values)) == texts:
                return setting
        return max(self.done, key=lambda one: self.estimate(one).value, default=None)


class _NotDoneError(Exception):
    """How far a run is."""


def _read_points(run: SweptRun, data: PairDataset, method: str, seed: int) -> Matched:
    columns = pair_columns(data.pairs)
    total = len(data.pairs)
    try:
        stored = StoredRun(run.folder)
    except StoreError as error:
        raise _NotDoneError(f"0 of {total} pairs") from error
    newest = stored.newest.get((method, seed))
    if newest is None:
        raise _NotDoneError(f"0 of {total} pairs of {method}, seed {seed}")
    wanted = [("method", method), ("seed", seed), ("config_hash", newest[-1])]
    rows = stored.table
    for name, value in wanted:
        rows = rows.filter(pc.equal(rows[name], value))
    places = keypoint_places(columns, rows)
    lacking = np.delete(columns.owner, np.unique(places[places >= 0]))
    missing = {data.pairs[owner].pair_id for owner in lacking.tolist()}
    if not missing <= _failed(run, "correspondence") or len(missing) == total:
        raise _NotDoneError(f"{total - len(missing)} of {total} pairs")
    return match_table(columns, rows, Handling(unknown="skip", missing="skip"))


def _read_masks(run: SweptRun, data: SegmentationDataset, method: str, seed: int) -> StoredMasks:
    ids = [data[index]["image_id"] for index in range(len(data))]
    if not (run.folder / "masks").is_dir():
        raise _NotDoneError(f"0 of {len(ids)} images")
    store = MaskStore(run.folder / "masks")
    hashes = {image_id: store.config_hash(image_id, method, seed) for image_id in ids}
    (usual, _), *_ = Counter(value for value in hashes.values() if value).most_common(1) or [("", 0)]
    done = [image_id for image_id in ids if usual and hashes[image_id] == usual]
    if not done or len(ids) - len(done) > len(_failed(run, "segmentation")):
        raise _NotDoneError(f"{len(done)} of {len(ids)} images")
    return StoredMasks(store, done, method, seed, usual)


def _failed(run: SweptRun, task: str) -> set[str]:
    """The items that a run has recorded as impossible."""
    path = run.folder / FAILURES
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {row["item"] for row in map(json.loads, lines) if row["task"] == task}


def _resample_points(
    settings: Sequence[Setting], data: PairDataset, protocol: PointProtocol, metric: str
) -> Resampled:
    """All settings on the keypoints that all of them have."""
    matched = [[m for m in one.found if isinstance(m, Matched)] for one in settings]
    common = np.logical_and.reduce([m.scored for of_setting in matched for m in of_setting])
    scores = [[score_matched(replace(m, scored=common), protocol) for m in ms] for ms in matched]
    return resample_scores([(of_setting, metric) for of_setting in scores])


def _resample_masks(
    settings: Sequence[Setting], data: SegmentationDataset, protocol: MaskProtocol, metric: str
) -> Resampled:
    """As `resample_scores`, of masks: counts are summed over runs and seeds, then over the images drawn."""
    if metric != "miou":
        raise DiffcorrError(f"expected the metric miou for masks, found {metric!r}: intervals are made of it")
    masks = [[m for m in one.found if isinstance(m, StoredMasks)] for one in settings]
    common = set.intersection(*(set(m.image_ids) for of_setting in masks for m in of_setting))
    places = [index for index in range(len(data)) if data[index]["image_id"] in common]

    def counts_of(one: StoredMasks) -> Array:
        return score_masks(one, data, protocol, places).per_image()[1].double().numpy()

    counts = [np.sum([counts_of(one) for one in of_setting], 0) for of_setting in masks]
    items = np.hstack([one.reshape(len(places), -1) for one in counts])

    def scores_of(totals: Array) -> Array:
        parts = [part.reshape(-1, *counts[0].shape[1:]) for part in np.split(totals, len(counts), axis=1)]
        return np.stack([mean_iou_from_counts(torch.from_numpy(part)).numpy() for part in parts], 1)

    drawn = np.concatenate([scores_of(totals) for totals in drawn_totals(items, 2000)])
    return Resampled(scores_of(items.sum(0, keepdims=True))[0], drawn, len(places))
