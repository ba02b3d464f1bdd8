"""Metric records: one number with everything that it needs to mean something."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from diffcorr.errors import StoreError
from diffcorr.stores.files import writable_folder, write_atomic


@dataclass(frozen=True)
class MetricRecord:
    """One score.

    Attributes:
        task: ``correspondence`` or ``segmentation``.
        method: name of the method that was scored.
        backbone: name of the frozen model.
        dataset: name of the data set.
        split: its split.
        protocol: name of the protocol; a number without one is refused.
        metric: name of the metric, such as ``pck@0.10`` or ``miou``.
        value: in percent, 0..100.
        num_items: how many pairs or images the value is over.
        seed: seed of the run.
        extra: further keys, such as the group of a breakdown; they stand beside the others in a file.

    Raises:
        StoreError: a field is empty, of another type, or out of its range.
    """

    task: str
    method: str
    backbone: str
    dataset: str
    split: str
    protocol: str
    metric: str
    value: float
    num_items: int
    seed: int
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        where = f"record {self.method}/{self.metric}"
        for name in ("task", "method", "backbone", "dataset", "split", "protocol", "metric"):
            value = getattr(self, name)
            if not isinstance(value, str) or not value:
                raise StoreError(f"expected {name} of a {where} to be a name, found {value!r}: name it")
        if isinstance(self.value, bool) or not isinstance(self.value, int | float):
            raise StoreError(f"expected value of {where} to be a number, found {self.value!r}")
        if not (math.isfinite(self.value) and 0 <= self.value <= 100):
            raise StoreError(f"expected value of {where} in percent, 0..100, found {self.value}")
        for name, least in (("num_items", 1), ("seed", 0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise StoreError(f"expected {name} of {where} to be an integer from {least}, found {value!r}")
        clash = set(self.extra) & _FIELDS
        if clash:
            raise StoreError(f"expected extra keys of {where} that are no fields, found {sorted(clash)}")

    def to_dict(self) -> dict[str, Any]:
        """A flat dictionary, fields first, then the extra keys."""
        return {name: getattr(self, name) for name in _ORDER} | dict(self.extra)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> MetricRecord:
        """The record of a flat dictionary; keys that are no fields become ``extra``.

        Raises:
            StoreError: a field is missing or out of its range.
        """
        missing = [name for name in _ORDER if name not in record]
        if missing:
            raise StoreError(f"expected the keys {', '.join(_ORDER)} in a metric record, missing {missing}")
        known = {name: record[name] for name in _ORDER}
        return cls(**known, extra={key: value for key, value in record.items() if key not in known})


_ORDER = tuple(item.name for item in fields(MetricRecord) if item.name != "extra")
_FIELDS = {*_ORDER, "extra"}


def write_records(path: str | os.PathLike[str], records: Iterable[MetricRecord]) -> None:
    """Write records as a JSON list, one record a line, whole or not at all.

    Raises:
        StoreError: the file cannot be written, or an extra value is no JSON.
    """
    target = Path(path)
    try:
        lines = [json.dumps(record.to_dict(), ensure_ascii=False, allow_nan=False) for record in records]
    except (TypeError, ValueError) as error:
        raise StoreError(f"expected extra keys of metric records to be finite JSON: {error}") from error
    text = "[\n" + ",\n".join(lines) + "\n]\n" if lines else "[]\n"
    writable_folder(target.parent)
    write_atomic(target, lambda to: to.write_text(text, encoding="utf-8"))


def read_records(path: str | os.PathLike[str]) -> list[MetricRecord]:
    """Read what :func:`write_records` wrote.

    Raises:
        StoreError: there is no such file, or it is no list of metric records.
    """
    target = Path(path)
    try:
        content = json.loads(target.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(
            f"expected a list of metric records in {str(target)!r}, found none that can be read: run eval.py"
        ) from error
    if not isinstance(content, list) or not all(isinstance(record, dict) for record in content):
        raise StoreError(f"expected a list of metric records in {str(target)!r}, found something else")
    return [MetricRecord.from_dict(record) for record in content]
