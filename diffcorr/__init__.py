"""diffcorr asks frozen diffusion models where things are.

from diffcorr import Matcher, Segmenter

match = Matcher.from_pretrained("tiny").match("a.jpg", "b.jpg", [(120, 88), (40, 60)])
match.plot("match.png")
Segmenter.from_pretrained("tiny").segment("a.jpg").plot("masks.png")
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diffcorr.fitted import FittedPoints
    from diffcorr.match import Match
    from diffcorr.matcher import Matcher
    from diffcorr.propagator import Carried, Propagator
    from diffcorr.segmenter import AttentionMaps, Segmentation, Segmenter
    from diffcorr.word_mapper import WordMapper, WordMaps

__version__ = "0.1.0"

__all__ = [
    "AttentionMaps",
    "Carried",
    "FittedPoints",
    "Match",
    "Matcher",
    "Propagator",
    "Segmentation",
    "Segmenter",
    "WordMapper",
    "WordMaps",
    "__version__",
]

_HOMES = {
    "AttentionMaps": "segmenter",
    "Carried": "propagator",
    "FittedPoints": "fitted",
    "Match": "match",
    "Matcher": "matcher",
    "Propagator": "propagator",
    "Segmentation": "segmenter",
    "Segmenter": "segmenter",
    "WordMapper": "word_mapper",
    "WordMaps": "word_mapper",
}


def __getattr__(name: str) -> object:
    # On first use: whoever imports one small module of the package does not wait for torch and diffusers.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
