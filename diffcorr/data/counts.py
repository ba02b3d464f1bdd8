"""How many items of a data set are asked for."""

from __future__ import annotations

from diffcorr.errors import DataError


def check_count(name: str, value: int | None, least: int = 0) -> int | None:
    """The value of a data set's option, where it can be one.

    Raises:
        DataError: it is below ``least``.
    """
    if value is not None and value < least:
        raise DataError(f"expected {name} of {least} or more, found {value}")
    return value
