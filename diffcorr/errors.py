"""What a user can do wrong, said in one line with the remedy.

Every error a user can cause is a :class:`DiffcorrError`; entry points print its message without
a traceback. A message says what was expected, what was found and what to do.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


class DiffcorrError(ValueError):
    """Base of all errors that the user can mend."""


class UnknownNameError(DiffcorrError):
    """A name that is not among the known ones (layer, backbone, protocol, method, split)."""

    def __init__(self, kind: str, name: object, known: Iterable[object]) -> None:
        super().__init__(f"unknown {kind} {name!r}; known: {', '.join(map(str, known))}")


class LayerError(DiffcorrError):
    """Attention layers that cannot be read, or a capture that recorded nothing."""


class BackboneError(DiffcorrError):
    """A folder or file that is no diffusion model, or one that cannot do what was asked."""


class ImageError(DiffcorrError):
    """An image that cannot be read, or a point outside of it."""


class DataError(DiffcorrError):
    """A data set that is missing, empty or not in the expected layout."""


class StoreError(DiffcorrError):
    """Stored embeddings or predictions that do not belong to what is asked, or cannot be written."""


class DivergedError(StoreError):
    """A fitted embedding that is not finite."""


class ProtocolError(DiffcorrError):
    """A score that the protocol cannot give (unknown protocol, missing threshold length)."""


def check_finite(embedding: Tensor, query_id: str, round: int) -> None:
    """Raise DivergedError where a fitted embedding has nan or inf."""
    if not bool(embedding.isfinite().all()):
        raise DivergedError(
            f"expected a finite embedding, found nan or inf for {query_id!r} round {round}: "
            "the fit diverged, lower its learning rate"
        )
