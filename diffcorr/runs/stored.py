"""What run folders hold: their predictions, the data that these were made on, and which of them count."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from omegaconf import OmegaConf

from diffcorr.config import instantiate, load_option, option_names
from diffcorr.errors import DataError, DiffcorrError, ProtocolError, StoreError, UnknownNameError
from diffcorr.metrics import Handling, Matched, PairColumns, match_table
from diffcorr.metrics.matching import keypoint_places
from diffcorr.stores.predictions import configurations, once, read_predictions
from diffcorr.types import PairDataset

log = logging.getLogger(__name__)
COLUMNS = ("method", "seed", "config_hash", "pair_id", "keypoint", "x", "y")


@dataclass(frozen=True)
class StoredMethod:
    """The predictions of one method under one seed, brought to a list of pairs.

    Attributes:
        method: its name.
        seed: its seed.
        config_hash: the configuration that counts.
        superseded: older ones of the same method and seed, which do not.
        matched: the predictions of that configuration.
        counts: what was handled (`Matched.counts`), and ``elsewhere``, predictions of other lists of pairs
            of the same run.
    """

    method: str
    seed: int
    config_hash: str
    superseded: tuple[str, ...]
    matched: Matched
    counts: Mapping[str, int]


class StoredRun:
    """A run folder of ``eval.py``, or a bare folder of predictions.

    Args:
        path: either of the two; a folder ``predictions`` inside of a run folder stands for the run.

    Attributes:
        folder: of the predictions.
        root: of the run; None of a bare folder of predictions.
        table: all rows, with the columns that scoring needs.

    Raises:
        StoreError: there are no predictions, or a shard is damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self.folder = inner if (inner := Path(path) / "predictions").is_dir() else Path(path)
        outer = self.folder.parent
        self.root = outer if self.folder.name == "predictions" and _configs(outer) else None
        self.table: pa.Table = once(read_predictions(self.folder, COLUMNS))

    @property
    def name(self) -> str:
        """Of the run folder, or of the folder of predictions."""
        return (self.root or self.folder).resolve().name

    @cached_property
    def methods(self) -> list[str]:
        """Names of the stored methods, sorted."""
        return sorted(self.table["method"].unique().to_pylist())

    @cached_property
    def newest(self) -> dict[tuple[str, int], list[str]]:
        """Configurations of each method and seed, the newest last."""
        return configurations(self.folder)

    @cached_property
    def backbones(self) -> list[str]:
        """Names of the models that the run used."""
        found = (config.get("backbone") for config in self._read())
        return sorted({str(node["name"]) for node in found if isinstance(node, dict) and "name" in node})

    @cached_property
    def data(self) -> list[PairDataset]:
        """The lists of pairs that the run was made on; none of a bare folder of predictions.

        Of lists that share name and split the longest: the others are parts of it.

        Raises:
            StoreError: a configuration cannot be read.
            DataError: none of the data are there any more.
        """
        longest: dict[tuple[str, str], PairDataset] = {}
        for data in self._lists:
            key = (data.name, data.split)
            if key not in longest or len(data.pairs) > len(longest[key].pairs):
                longest[key] = data
        return list(longest.values())

    @cached_property
    def _lists(self) -> list[PairDataset]:
        nodes = [config["data"] for config in self._read() if isinstance(config.get("data"), dict)]
        once_each = {json.dumps(node, sort_keys=True): node for node in nodes}
        found, errors = [], []
        for node in once_each.values():
            try:
                if (data := _rebuild(node)) is not None:
                    found.append(data)
            except DiffcorrError as error:
                errors.append(error)
        if errors and not found:
            raise errors[0]
        for told in errors:  # such as those of a start with a wrong option, which left its configuration
            log.warning("%s: data of one of its configurations are left out: %s", self.folder, told)
        return found

    def _read(self) -> Iterator[dict[str, Any]]:
        for path in _configs(self.root) if self.root else ():
            try:
                config = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
                if isinstance(config, dict):
                    yield {str(key): value for key, value in config.items()}
                    continue
                cause = None
            except Exception as error:  # YAML and OmegaConf have no common error
                cause = error
            raise StoreError(
                f"expected the configuration of a run in {str(path)!r}, found none that can be read: restore "
                "it"
            ) from cause

    def match(
        self,
        columns: PairColumns,
        handling: Handling,
        methods: Sequence[str] | None = None,
        chosen: Iterable[str] = (),
    ) -> list[StoredMethod]:
        """The predictions of each method and seed, for a list of pairs.

        A method and seed may be stored under several configurations: the newest that predicts every
        keypoint counts, and the log says which do not. Predictions of other lists of pairs of the same run
        are set aside, and a method that has no others is left out; what is unknown besides is handled as
        `handling` says.

        Args:
            columns: the pairs.
            handling: of what does not fit them.
            methods: only these; None for all.
            chosen: configurations to count instead of the newest.

        Raises:
            UnknownNameError: no such method or configuration.
            ProtocolError: predictions do not fit the pairs, or none of several configurations is complete.
        """
        for name in methods or ():
            if name not in self.methods:
                raise UnknownNameError("method in the store", name, self.methods)
        hashes = sorted(set(self.table["config_hash"].to_pylist()))
        for name in chosen:
            if name not in hashes:
                raise UnknownNameError("configuration in the store", name, hashes)
        found = []
        for method in self.methods:
            if methods and method not in methods:
                continue
            of_method = self.table.filter(pc.equal(self.table["method"], method))
            for seed in sorted(of_method["seed"].unique().to_pylist()):
                rows = of_method.filter(pc.equal(of_method["seed"], seed))
                try:
                    one = self._match(columns, handling, method, seed, rows, set(chosen))
                except ProtocolError as error:
                    raise ProtocolError(f"{method}, seed {seed}: {error}") from error
                if one is not None:
                    found.append(one)
        return found

    @cached_property
    def _ids(self) -> set[str]:
        """Of all pairs of the run's lists; none where they are not there any more."""
        try:
            return {pair.pair_id for data in self._lists for pair in data.pairs}
        except DiffcorrError as error:
            log.info("the lists of pairs of %s cannot be read: %s", self.folder, error)
            return set()

    def _match(
        self,
        columns: PairColumns,
        handling: Handling,
        method: str,
        seed: int,
        rows: pa.Table,
        chosen: set[str],
    ) -> StoredMethod | None:
        """None where all of them belong to other lists of this run."""
        before = len(rows)
        unknown = np.flatnonzero(keypoint_places(columns, rows) < 0)
        if len(unknown):
            ids = self._ids - {pair.pair_id for pair in columns.pairs}
            rows = rows.filter(pc.invert(pc.is_in(rows["pair_id"], pa.array(sorted(ids), pa.string()))))
        if not len(rows):
            return None
        elsewhere = before - len(rows)
        config_hash, superseded = _choose(columns, rows, self.newest[method, seed], chosen)
        if superseded:
            log.info(
                "%s, seed %d: %s, the newest of %d configurations, counts; not %s",
                *(method, seed, config_hash, 1 + len(superseded), ", ".join(superseded)),
            )
        matched = match_table(columns, rows.filter(pc.equal(rows["config_hash"], config_hash)), handling)
        counts = {**matched.counts, "elsewhere": elsewhere}
        return StoredMethod(method, seed, config_hash, superseded, matched, counts)


def _choose(
    columns: PairColumns, rows: pa.Table, newest: Sequence[str], chosen: set[str]
) -> tuple[str, tuple[str, ...]]:
    """The configuration that counts, and those that do not."""
    there = set(rows["config_hash"].unique().to_pylist())
    known = [name for name in newest if name in there]
    named = [name for name in known if name in chosen]
    if len(named) > 1:
        raise ProtocolError(f"expected one configuration, found {', '.join(named)}: choose one of them")
    complete = named
    if not named:
        complete = known
        if len(known) > 1:
            covered = {name: _covered(columns, rows, name) for name in known}
            complete = [name for name in known if covered[name] == len(columns.owner)]
            if not complete:
                told = ", ".join(f"{name} with {count}" for name, count in covered.items())
                raise ProtocolError(
                    f"expected a configuration that predicts all {len(columns.owner)} keypoints, found "
                    f"{told}: run the one that is meant to its end, or choose it with --config"
                )
    return complete[-1], tuple(name for name in known if name != complete[-1])


def _covered(columns: PairColumns, rows: pa.Table, config_hash: str) -> int:
    places = keypoint_places(columns, rows.filter(pc.equal(rows["config_hash"], config_hash)))
    return len(np.unique(places[places >= 0]))


def all_data(runs: Sequence[StoredRun], name: str | None, options: Mapping[str, object]) -> list[PairDataset]:
    """The lists of pairs to score.

    Args:
        runs: whose own lists are taken unless another is named.
        name: of an option of ``configs/data``, or the name that the data have in results.
        options: values of it to change.

    Raises:
        DataError: none is named and no run has one of its own.
        UnknownNameError: no such data set.
    """
    own = {(data.name, data.split): data for run in runs for data in run.data} if not options else {}
    if name is None:
        if options:
            raise DataError("expected the data whose options to change, found none: name it with --data")
        if not own:
            raise DataError(
                f"expected the run that the predictions in {str(runs[0].folder)!r} are of, found them alone: "
                "name their data with --data"
            )
        return list(own.values())
    if named := [data for data in own.values() if data.name == name]:
        return named
    return [load_data(name, options)]


def the_data(runs: Sequence[StoredRun], name: str | None, options: Mapping[str, object]) -> PairDataset:
    """As `all_data`, where there has to be one.

    Raises:
        DataError: there are several, or none.
    """
    found = all_data(runs, name, options)
    if len(found) > 1:
        told = ", ".join(f"{data.name} {data.split}" for data in found)
        raise DataError(f"expected one data set to score, found {told}: choose one with --data")
    return found[0]


def load_data(name: str, options: Mapping[str, object]) -> PairDataset:
    """The pairs of ``configs/data/<name>.yaml`` with options changed.

    Raises:
        UnknownNameError: no such data set.
        DataError: it has no pairs.
    """
    data = instantiate(load_option("data", name), **options)
    if not isinstance(data, PairDataset) or not data.pairs:
        raise DataError(
            f"expected a data set with pairs, found none in {name!r}; choose another or its options"
        )
    return data


def _configs(root: Path) -> list[Path]:
    # the first has no number
    return sorted(root.glob("config-correspondence*.yaml"), key=lambda path: (len(path.stem), path.stem))


def _rebuild(node: Mapping[str, Any]) -> PairDataset | None:
    """The data of a stored configuration."""
    name = option_of("data", node)
    return None if name is None else load_data(name, {k: v for k, v in node.items() if k != "_target_"})


def option_of(group: str, node: Mapping[str, Any]) -> str | None:
    """The option of a config group that a stored node came from, whatever its values; None of a stranger.

    A file on disk must not choose what code runs: its class has to be that of an option, and everything else
    in it a plain value.
    """
    values = {key: value for key, value in node.items() if key != "_target_"}
    plain = all(not isinstance(value, dict) for value in values.values())
    for name in option_names(group) if plain else ():
        option = load_option(group, name)
        if option._target_ == node.get("_target_") and set(values) <= set(option):
            return name
    return None
