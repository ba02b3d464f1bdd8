"""Which keypoints stand together in a breakdown: a label for each keypoint of a list of pairs.

A grouping gives (N,) labels in the order of `PairColumns.owner`; None is in no group.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from diffcorr.errors import ProtocolError, UnknownNameError
from diffcorr.metrics.columns import PairColumns
from diffcorr.types import Pair

Labels = list[str | None]

DIFFICULTY = ("viewpoint_variation", "scale_variation", "truncation", "occlusion")
"""SPair-71k's flags: 0, 1, 2 (easy, medium, hard) of the first two; 0 none, 1 source, 2 target, 3 both."""

_SIDES = {"left": "right", "right": "left", "l": "r", "r": "l"}


def _side(keypoint: str) -> re.Match[str] | None:
    """The one word of a name that says its side.

    Words are divided by spaces, underscores, hyphens or a change of case; just one of them is ``left``,
    ``right``, ``l`` or ``r``: ``left_eye``, ``left wing``, ``L_EarBase``, ``frontLeftPaw``.
    """
    words = re.finditer(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+", keypoint)
    sided = [word for word in words if word.group().lower() in _SIDES]
    return sided[0] if len(sided) == 1 else None


def mirrored_name(keypoint: str) -> str | None:
    """The name of a keypoint's look-alike on the other side, or None where it has no side."""
    word = _side(keypoint)
    if word is None:
        return None
    other = _SIDES[word.group().lower()]
    if word.group().isupper():
        other = other.upper()
    elif word.group()[0].isupper():
        other = other.capitalize()
    return keypoint[: word.start()] + other + keypoint[word.end() :]


def part_name(keypoint: str) -> str:
    """The name without its side, in small letters: ``left_eye`` and ``RightEye`` are an ``eye``."""
    word = _side(keypoint)
    rest = keypoint if word is None else keypoint[: word.start()] + "_" + keypoint[word.end() :]
    return re.sub(r"[\W_]+", "_", rest).strip("_").lower() or keypoint


def by_category(columns: PairColumns) -> Labels:
    """The pair's category."""
    return [pair.category for pair in columns.pairs for _ in pair.keypoints]


def by_keypoint(columns: PairColumns) -> Labels:
    """``category/keypoint``: names (and SPair-71k's numbers) mean other things in other categories."""
    return [f"{pair.category}/{name}" for pair in columns.pairs for name in pair.keypoints]


def by_part(columns: PairColumns) -> Labels:
    """What the keypoint is, whatever its side and category (`part_name`).

    Raises:
        ProtocolError: keypoints are numbers, as SPair-71k's, which mean other things in other categories.
    """
    names = {name for pair in columns.pairs for name in pair.keypoints}
    if numbered := sorted(name for name in names if name.isdecimal()):
        raise ProtocolError(
            f"expected keypoints with names to divide by part, found the number {numbered[0]}"
        )
    parts = {name: part_name(name) for name in names}
    return [parts[name] for pair in columns.pairs for name in pair.keypoints]


def by_geometry(columns: PairColumns) -> Labels:
    """``look-alike`` where the keypoint's mirror image is a keypoint of the same pair, else ``unique``.

    GeoAware-SC (Zhang et al., CVPR 2024) asks for a look-alike that the target shows; a pair here holds
    what both images show, so this is a part of their subset.

    Raises:
        ProtocolError: no keypoint has a look-alike, as with SPair-71k's numbers, which tell no sides.
    """
    labels: Labels = [
        "look-alike" if mirrored_name(name) in pair.keypoints else "unique"
        for pair in columns.pairs
        for name in pair.keypoints
    ]
    if "look-alike" not in labels:
        raise ProtocolError(
            "expected keypoints with a look-alike such as left_eye and right_eye, found none by name: the "
            "geometry-aware subset needs names that tell sides"
        )
    return labels


def by_visibility(columns: PairColumns) -> Labels:
    """``visible`` or ``occluded``: a keypoint's own tag ``visible`` where there is one, else its pair's.

    The pair's is its ``occlusion`` flag: ``visible`` where neither image is occluded.

    Raises:
        ProtocolError: no pair has one of the two tags.
    """
    labels: Labels = []
    for pair in columns.pairs:
        if "visible" in pair.tags:
            labels += [_say_visible(value) for value in _values(pair, "visible")]
        else:
            flag = pair.tags.get("occlusion")
            labels += [None if flag is None else _say_visible(not flag)] * len(pair.keypoints)
    if not any(labels):
        raise ProtocolError("expected pairs with a tag 'visible' or 'occlusion', found neither")
    return labels


def by_tag(columns: PairColumns, tag: str) -> Labels:
    """The value of a tag; that of each keypoint where the tag maps keypoints, or lists one value for each.

    Raises:
        UnknownNameError: no pair has the tag.
    """
    tags = {name for pair in columns.pairs for name in pair.tags}
    if tag not in tags:
        raise UnknownNameError("breakdown", tag, [*GROUPINGS, "difficulty", *sorted(tags)])
    return [None if v is None else str(v) for pair in columns.pairs for v in _values(pair, tag)]


GROUPINGS: dict[str, Callable[[PairColumns], Labels]] = {
    "category": by_category,
    "keypoint": by_keypoint,
    "part": by_part,
    "geometry": by_geometry,
    "visibility": by_visibility,
}


def groupings(columns: PairColumns, by: str) -> dict[str, Labels]:
    """The labels of a grouping, of a tag, or of all flags of `DIFFICULTY` that the pairs have.

    Raises:
        UnknownNameError: there is no such grouping or tag.
        ProtocolError: as the grouping, or no flag of difficulty is there.
    """
    if by in GROUPINGS:
        return {by: GROUPINGS[by](columns)}
    if by != "difficulty":
        return {by: by_tag(columns, by)}
    there = [tag for tag in DIFFICULTY if any(tag in pair.tags for pair in columns.pairs)]
    if not there:
        raise ProtocolError(f"expected pairs with a tag of {', '.join(DIFFICULTY)}, found none")
    return {tag: by_tag(columns, tag) for tag in there}


def _values(pair: Pair, tag: str) -> list[object]:
    value = pair.tags.get(tag)
    if isinstance(value, Mapping):
        return [value.get(name) for name in pair.keypoints]
    if isinstance(value, list | tuple) and len(value) == len(pair.keypoints):
        return list(value)
    return [value] * len(pair.keypoints)


def _say_visible(value: object) -> str | None:
    return None if value is None else "visible" if value else "occluded"
