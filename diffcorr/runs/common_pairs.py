"""Which pairs the methods of a run are compared on: those that all of them could do."""

from __future__ import annotations

from collections.abc import Container, Sequence
from pathlib import Path

from diffcorr.errors import DiffcorrError
from diffcorr.runs.common import FAILURES
from diffcorr.types import Pair


class CommonPairs:
    """The pairs that no method has failed on so far.

    Args:
        asked: the pairs that were asked for.
        folder: of the run, named in the error.

    Attributes:
        left: the pairs to score, in the order of ``asked``.
    """

    def __init__(self, asked: Sequence[Pair], folder: Path) -> None:
        self.asked, self.folder, self.left = asked, folder, list(asked)
        self._methods: list[tuple[str, int]] = []

    def add(self, method: str, seed: int, done: Container[str]) -> list[tuple[str, int]]:
        """Take in what a method has done, by pair id.

        Returns:
            The (method, seed) to score: this one, or all anew where it lacks pairs that the others have.

        Raises:
            DiffcorrError: no pair is left.
        """
        left = [pair for pair in self.left if pair.pair_id in done]
        if not left:
            raise DiffcorrError(
                f"expected results of {method}, found none: every pair failed, see "
                f"{str(self.folder / FAILURES)!r}"
            )
        self._methods.append((method, seed))
        fewer, self.left = len(left) < len(self.left), left
        return list(self._methods) if fewer else [(method, seed)]

    @property
    def note(self) -> dict[str, int]:
        """What to add to a record: how many pairs were asked for, where fewer are left."""
        return {"num_asked": len(self.asked)} if len(self.left) < len(self.asked) else {}
