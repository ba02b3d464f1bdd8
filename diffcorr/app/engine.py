"""The one model that all visitors share: whose turn it is, and who wants to stop."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from diffcorr.backbones.base import Backbone
from diffcorr.config import load_option, option_names
from diffcorr.correspondence.prompt_fit import FitProgress
from diffcorr.inputs import load_backbone
from diffcorr.matcher import Matcher
from diffcorr.segmenter import Segmenter
from diffcorr.word_mapper import WordMapper

PRESETS = ("prompt_fit", "packed", "prompt_fit_rerank", "prompt_fit_paper", "prompt_fit_reference")


class Cancelled(Exception):  # noqa: N818 - no error, like StopIteration
    """The visitor wants no more of it."""


class Engine:
    """A frozen model, used by one visitor at a time.

    Args:
        backbone: frozen.
        name: how it is called.
    """

    def __init__(self, backbone: Backbone, name: str) -> None:
        self.backbone, self.name = backbone, name
        self._turn = threading.Lock()
        self._stops: dict[str, threading.Event] = {}
        self.segmenter = lru_cache(maxsize=4)(self._segmenter)
        self.words = lru_cache(maxsize=1)(self._words)

    @classmethod
    def load(cls, backbone: str, device: str, dtype: str) -> Engine:
        """On a model that is loaded by name.

        Raises:
            DiffcorrError: as `load_backbone`.
        """
        return cls(load_backbone(backbone, device, dtype), backbone)

    @property
    def presets(self) -> list[str]:
        """Presets of prompt fitting, the one that suits the model first."""
        known = option_names("method")
        first = "prompt_fit" if self.name == "tiny" else "prompt_fit_paper"
        return [first, *(name for name in PRESETS if name in known and name != first)]

    def matcher(self, preset: str, seed: int) -> Matcher:
        """A new one: what it remembers of fitted points is its visitor's alone.

        Raises:
            DiffcorrError: an unknown preset.
        """
        return Matcher.from_pretrained(self.backbone, preset=preset, seed=seed)

    def default_tau(self) -> float:
        """The threshold that the model's preset has."""
        tau: Any = load_option("method", "diffseg" if self.name == "tiny" else "diffseg_paper").tau
        return float(tau) if isinstance(tau, int | float) else 0.9

    @contextmanager
    def turn(self, visitor: str) -> Iterator[Callable[[], None]]:
        """The model to oneself; gives a function that raises `Cancelled` once `stop` was called."""
        stop = self._stops[visitor] = threading.Event()

        def check() -> None:
            if stop.is_set():
                raise Cancelled

        try:
            with self._turn:
                check()
                yield check
        finally:
            if self._stops.get(visitor) is stop:
                del self._stops[visitor]

    def stop(self, visitor: str) -> bool:
        """Ask a visitor's work to end; whether there is any."""
        event = self._stops.get(visitor)
        if event is not None:
            event.set()
        return event is not None

    def _segmenter(self) -> Segmenter:
        return Segmenter.from_pretrained(self.backbone)

    def _words(self) -> WordMapper:
        return WordMapper.from_pretrained(self.backbone)


def tell_progress(check: Callable[[], None], bar: Callable[..., object]) -> Callable[[FitProgress], None]:
    """What a fit is to call: ends it where the visitor wants, and else moves the page's bar."""

    def on_progress(at: FitProgress) -> None:
        check()
        loss = "" if at.loss != at.loss else f", loss {at.loss:.4f}"
        bar(0.9 * at.done / max(1, at.total), desc=f"fitting: {at.done} of {at.total} steps{loss}")

    return on_progress
