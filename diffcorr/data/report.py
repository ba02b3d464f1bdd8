"""What a check of a data set on disk tells, whatever kind of data set it is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Report(ABC):
    """What was found.

    Attributes:
        dataset: its name.
        root: where.
        problems: what has to be mended, a line each.
        notes: what is worth knowing, a line each.
    """

    dataset: str
    root: str
    problems: list[str] = field(default_factory=list, kw_only=True)
    notes: list[str] = field(default_factory=list, kw_only=True)

    @property
    def sound(self) -> bool:
        """Whether the data set, or the part of it that is there, can be used."""
        return not self.problems

    @property
    @abstractmethod
    def complete(self) -> bool:
        """Whether it is sound and has all that the official one has."""

    @abstractmethod
    def counts(self) -> list[str]:
        """What there is, for people, a line each."""

    def lines(self) -> list[str]:
        """All of it for people, a line each."""
        notes = [f"note: {note}" for note in self.notes]
        return [*self.counts(), *notes, *(f"problem: {problem}" for problem in self.problems)]

    def to_dict(self) -> dict[str, Any]:
        """For machines."""
        return {**asdict(self), "sound": self.sound, "complete": self.complete}
