"""The runs of a sweep: what they vary, and where they differ in more than that."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from diffcorr.config import load_option, option_names
from diffcorr.errors import DataError, StoreError, UnknownNameError

SEED = "seed"
"""The one swept key whose values are averaged over, not compared."""

_CHANGE_NO_SCORE = {
    *("output_dir", "embeddings_root", "embeddings", "latents_root", "latents_gib", "on_error"),
    *("report", "num_figures", "num_heatmaps", "baselines", "protocols", "experiment", "seeds"),
    *("trainer.default_root_dir",),
    *("trainer.enable_progress_bar", "trainer.log_every_n_steps"),
}
_CHANGE_NO_SCORE_AT_ALL = ("logger", "hydra")
"""Groups of which no value changes a score."""
_SPEED_ONLY = ("pack_size", "batch_size", "stop_early", "cache", "cache_gib")
_ABOUT = ("git.commit", "git.dirty", "device", "threads")
"""What ``run.json`` tells that runs of one sweep should share, beside the versions."""


@dataclass(frozen=True)
class SweptRun:
    """One run folder.

    Attributes:
        folder: of the run.
        name: of the folder, seen from the sweep's.
        config: the resolved configuration of its last start, flat: ``{"method.fit.sigma": 0.05}``.
        nodes: the same, nested.
        overrides: what its command line changed, by key; None where the folder does not tell.
        about: what ``run.json`` tells of code and machine, flat.
    """

    folder: Path
    name: str
    config: Mapping[str, Any]
    nodes: Mapping[str, Any]
    overrides: Mapping[str, str] | None
    about: Mapping[str, Any]

    def value(self, key: str) -> Any:
        """What the run has for a key: of a config group (``method``) the option that was chosen."""
        if key in self.config:
            return self.config[key]
        if self.overrides is not None and key in self.overrides:
            return self.overrides[key]
        return self.config.get(f"{key}.name")

    @property
    def task(self) -> str:
        """Of ``eval.py``."""
        return str(self.config.get("task"))


class Sweep:
    """Several runs, and the keys that they vary.

    Args:
        runs: one or more.
        keys: the swept keys; by default those that command lines changed and that differ, or, where the
            folders do not tell, every key that differs.

    Attributes:
        runs: as given.
        keys: the swept keys without the seed.

    Raises:
        UnknownNameError: a key that no run has.
    """

    def __init__(self, runs: Sequence[SweptRun], keys: Sequence[str] | None = None) -> None:
        self.runs = list(runs)
        known = sorted({key for run in runs for key in (*run.config, *(run.overrides or {}))})
        for key in keys or ():
            if key not in known:
                raise UnknownNameError("key of these runs", key, known)
        self.keys = [key for key in keys or self._varied() if key != SEED]

    def values(self, run: SweptRun) -> tuple[Any, ...]:
        """What a run has for the swept keys."""
        return tuple(run.value(key) for key in self.keys)

    def in_order(self, key: str) -> list[Any]:
        """The values of a key: numbers ascending, lists of numbers short ones first, others as they come."""
        found = list({say(run.value(key)): run.value(key) for run in self.runs}.values())
        if all(map(is_number, found)):
            return sorted(found)
        if all(isinstance(value, list) and all(map(is_number, value)) for value in found):
            return sorted(found, key=lambda value: (len(value), value))
        return found

    def labels(self) -> dict[str, str]:
        """Short names of the keys: as many of their last parts as tell them apart."""
        short = {}
        for key in self.keys:
            parts = key.split(".")
            for count in range(1, len(parts) + 1):
                label = ".".join(parts[-count:])
                if sum(other == label or other.endswith(f".{label}") for other in self.keys) == 1:
                    break
            short[key] = label
        return short

    @cached_property
    def flags(self) -> dict[Path, list[str]]:
        """Where runs differ in more than the swept keys, by their folder: what it is, and what most have.

        A key that has a swept key's value in every run (a reading that takes over what the fit has) differs
        because of it.
        """
        found: dict[Path, list[str]] = {run.folder: [] for run in self.runs}
        names = [name for name in dict.fromkeys(key for run in self.runs for key in run.config)]
        columns = {name: [say(run.config.get(name)) for run in self.runs] for name in names}
        swept = [*self.keys, SEED]
        explained = [columns[n] for n in names if n in swept or any(n.startswith(_group(k)) for k in swept)]
        for name, column in columns.items():
            if _matters(name) and column not in explained:
                self._flag(found, name, column)
        about = dict.fromkeys(key for run in self.runs for key in run.about)
        for name in about:
            if name in _ABOUT or name.startswith("versions."):
                self._flag(found, name, [say(run.about.get(name)) for run in self.runs])
        return found

    def _flag(self, found: dict[Path, list[str]], name: str, column: Sequence[str]) -> None:
        usual = Counter(column).most_common(1)[0][0]
        for run, value in zip(self.runs, column, strict=True):
            if value != usual:
                found[run.folder].append(f"{name} is {value}, of most {usual}")

    def _varied(self) -> list[str]:
        changed = [key for run in self.runs for key in run.overrides or ()]
        if any(run.overrides is None for run in self.runs):
            leaves = [key for run in self.runs for key in run.config]
            # what another option of a group brings along is not swept: the option is
            changed += [*(key for key in leaves if key.endswith(".name")), *leaves]
        keys: list[str] = []
        seen: list[list[str]] = []
        for key in dict.fromkeys(changed):
            column = [say(run.value(key)) for run in self.runs]
            below = any(key.startswith(_group(swept)) for swept in keys)
            if _matters(key) and len(set(column)) > 1 and column not in seen and not below:
                keys.append(key)
                seen.append(column)
        return keys


def preset_values(sweep: Sweep) -> tuple[Any, ...] | None:
    """The swept keys' values in the method's preset; None without one, or where other keys are swept."""
    name = sweep.runs[0].config.get("method.name")
    if name not in option_names("method") or not all(key.startswith("method.") for key in sweep.keys):
        return None
    preset = load_option("method", str(name), {"seed": 0, "attention": None})
    flat = _flat({"method": OmegaConf.to_container(preset, resolve=True)})
    return tuple(flat.get(key) for key in sweep.keys)


def find_runs(folders: Iterable[str | Path]) -> list[SweptRun]:
    """The run folders in (or among) ``folders``, in the order of their names.

    A run that has only just begun, or that failed, is there as soon as it has written its configuration.

    Raises:
        DataError: there are none.
        StoreError: a configuration cannot be read.
    """
    found: dict[Path, SweptRun] = {}
    given = [Path(folder) for folder in folders]
    for top in given:
        for folder in sorted({path.parent for path in top.rglob("config-*.yaml")}):
            if (run := _read_run(folder, top if len(given) == 1 else top.parent)) is not None:
                found.setdefault(folder.resolve(), run)
    if not found:
        raise DataError(
            f"expected runs of a sweep in {', '.join(map(repr, map(str, given)))}, found none: name the "
            "folder that `eval.py -m` filled"
        )
    return list(found.values())


def say(value: Any) -> str:
    """A value in a table: ``0.05``, ``5,6``, ``mean``."""
    if isinstance(value, list | tuple):
        return ",".join(map(say, value)) or "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def is_number(value: object) -> bool:
    """Whether a value is a number, which True is not here."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _read_run(folder: Path, top: Path) -> SweptRun | None:
    # a configuration that is used again is written again: the last one written is what the run does now
    newest = max(folder.glob("config-*.yaml"), key=lambda path: path.stat().st_mtime_ns)
    try:
        nodes = OmegaConf.to_container(OmegaConf.load(newest), resolve=True)
        about_file = newest.with_name(newest.name.replace("config-", "run-", 1)).with_suffix(".json")
        about = json.loads(about_file.read_text(encoding="utf-8")) if about_file.exists() else {}
    except Exception as error:  # YAML, JSON and OmegaConf have no common error
        raise StoreError(
            f"expected the configuration of a run in {str(newest)!r}, found none that can be read: restore it"
        ) from error
    if not isinstance(nodes, dict) or "method" not in nodes:
        return None
    told = about.pop("overrides", None)
    overrides = None if told is None else dict(map(_split, told))
    name = str(folder.relative_to(top)) if folder != top else folder.name
    named = {str(key): value for key, value in nodes.items()}
    return SweptRun(folder, name, _flat(nodes), named, overrides, _flat(about))


def _split(override: str) -> tuple[str, str]:
    key, _, value = override.lstrip("+~").partition("=")
    return key.replace("/", ".").partition("@")[0], value


def _group(key: str) -> str:
    """How the keys begin that another option of a config group changes: of ``method`` and ``method.name``."""
    return f"{key.removesuffix('.name')}."


def _matters(key: str) -> bool:
    """Whether a value of the configuration may change a score."""
    parts = key.split(".")
    return (
        key not in _CHANGE_NO_SCORE
        and parts[0] not in _CHANGE_NO_SCORE_AT_ALL
        and parts[-1] not in _SPEED_ONLY
    )


def _flat(node: Any, prefix: str = "") -> dict[str, Any]:
    return dict(_leaves(node, prefix))


def _leaves(node: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from _leaves(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, node
