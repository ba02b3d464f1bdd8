"""Pairs of one's own: a folder with pictures and a ``pairs.csv`` or ``pairs.json``."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from diffcorr.data.images import upright_size
from diffcorr.data.pair_files import About, Candidate, PairFiles, View, box, numbers, present
from diffcorr.data.tables import read_json, read_records
from diffcorr.errors import DataError, ImageError
from diffcorr.types import Box, Point

FILES = ("pairs.csv", "pairs.json")
COLUMNS = ("source", "target", "source_x", "source_y", "target_x", "target_y")
Record = dict[str, Any]


class OwnPairs(PairFiles):
    """Any pictures with points that correspond.

    Format of ``pairs.csv``: a line a point, columns source, target (files inside the folder), source_x,
    source_y, target_x, target_y (pixels of the upright picture, from its top left corner); optional keypoint
    (a name), category, split, source_box, target_box (``x_min y_min x_max y_max``). Lines of the same
    source, target and split are one pair. ``pairs.json``: a list of objects with source, target,
    source_points, target_points (lists of [x, y]) and optionally keypoints, category, split, source_box,
    target_box, tags. A point (-1, -1), in JSON also null, is one that is not visible.

    Without a box the whole picture is taken, so that PCK's threshold follows the longer side of the
    picture. Ids hold digests of the pictures and the places of the points, so that nothing that was fitted
    for an older picture or point is taken for a new one.

    Args:
        root: the folder.
        split: only pairs of this split, where the file names splits; else a label.
        file: name of the list inside ``root`` (None: pairs.csv or pairs.json, whichever is there).
        name: of the data set in results (None: the folder's).
        categories: as `PairFiles`.
        num_pairs: as `PairFiles`.
        read_sizes: as `PairFiles`.

    Raises:
        DataError, ImageError, UnknownNameError: as `PairFiles`.
    """

    name = "own_pairs"
    about = About(
        title="pairs of your own",
        source="write pairs.csv or pairs.json beside your pictures",
        licence="yours",
        size="yours",
        layout=f"a folder with pairs.csv (columns {', '.join(COLUMNS)}) or pairs.json, and pictures",
        citation="",
    )

    def __init__(
        self,
        root: str | Path,
        split: str = "test",
        file: str | None = None,
        name: str | None = None,
        categories: Sequence[str] | str | None = None,
        num_pairs: int | None = None,
        read_sizes: bool = True,
    ) -> None:
        self._path = _list_of(Path(root).expanduser(), file)
        self._records = list(_records(self._path))
        named = sorted({r["split"] for r in self._records if r["split"]})
        self.splits = tuple(named) if named else (split,)  # type: ignore[misc]  # each folder has its own
        self.name = name or Path(root).expanduser().resolve().name
        self._ids: dict[str, str] = {}
        super().__init__(root, split, categories, num_pairs, read_sizes)

    @classmethod
    def available(cls, root: str | Path) -> list[str]:
        """The splits that the file names, or ``test`` for the one that has no name."""
        records = _records(_list_of(Path(root).expanduser(), None))
        return sorted({str(r["split"]) for r in records if r["split"]}) or ["test"]

    def _candidates(self) -> Iterator[Candidate]:
        for record in self._records:
            if (record["split"] or self.split) != self.split:
                continue
            sides = [self._image_id(record[key], record["where"]) for key in ("source", "target")]
            content = repr((sides, record["keypoints"], record["points"], record["boxes"]))
            digest = hashlib.sha256(content.encode()).hexdigest()[:8]
            stems = [re.sub(r"[^\w.]+", "_", Path(record[key]).stem) for key in ("source", "target")]
            yield Candidate("-".join([*stems, digest]), record["category"], (record, sides))

    def _image_id(self, file_name: str, where: str) -> str:
        if file_name not in self._ids:
            path = self.root / file_name
            if not path.resolve().is_relative_to(self.root.resolve()):
                raise DataError(
                    f"expected pictures inside of {self.root} in {where}, found {file_name}; move it there"
                )
            try:
                digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
            except OSError:
                if self.read_sizes:
                    raise ImageError(
                        f"expected a picture at {path} ({where}), found none; check the path"
                    ) from None
                digest = "missing"
            self._ids[file_name] = f"{file_name}@{digest}"
            self.files[self._ids[file_name]] = path
        return self._ids[file_name]

    def _views(self, candidate: Candidate) -> tuple[View, View, Mapping[str, object]]:
        record, sides = candidate.row
        names = [
            f"{name}@{point[0]:g},{point[1]:g}" if name else f"{point[0]:g},{point[1]:g}"
            for name, point in zip(record["keypoints"], record["points"][0], strict=True)
        ]
        if len(set(names)) < len(names):
            raise DataError(
                f"expected each source point of {record['where']} once, found {names}; mend the list"
            )
        views = [
            View(
                image_id,
                {name: point for name, point in zip(names, points, strict=True) if present(*point)},
                given or self._whole(image_id),
            )
            for image_id, points, given in zip(sides, record["points"], record["boxes"], strict=True)
        ]
        return views[0], views[1], record["tags"]

    def _whole(self, image_id: str) -> Box | None:
        try:
            width, height = self._size(image_id) if self.read_sizes else upright_size(self.files[image_id])
        except ImageError:
            if self.read_sizes:
                raise
            return None
        return 0.0, 0.0, float(width), float(height)


def _list_of(root: Path, file: str | None) -> Path:
    if not root.is_dir():
        raise DataError(f"expected a folder of pictures and pairs at {root}, found none; set data.root")
    names = [file] if file else list(FILES)
    found = [name for name in names if (root / name).is_file()]
    if len(found) != 1:
        told = " and ".join(found) or "none"
        raise DataError(
            f"expected one list of pairs, {' or '.join(names)}, in {root}, found {told}; set data.file"
        )
    return root / found[0]


def _records(path: Path) -> Iterator[Record]:
    """Pairs of either kind of file, as objects of one form."""
    return _from_json(path) if path.suffix.lower() == ".json" else _from_csv(path)


def _from_csv(path: Path) -> Iterator[Record]:
    pairs: dict[tuple[str, str, str], Record] = {}
    for number, row in read_records(path, COLUMNS):
        where = f"line {number} of {path}"
        key = (row["source"], row["target"], row.get("split", ""))
        if not all(key[:2]):
            raise DataError(f"expected a source and a target in {where}, found {key[:2]}; mend the line")
        pair = pairs.setdefault(
            key,
            {
                "source": key[0],
                "target": key[1],
                "split": key[2],
                "where": where,
                "category": row.get("category") or "own",
                "keypoints": [],
                "points": ([], []),
                "boxes": [_box(row.get(f"{side}_box"), side, where) for side in ("source", "target")],
                "tags": {},
            },
        )
        pair["keypoints"].append(row.get("keypoint", ""))
        for points, side in zip(pair["points"], ("source", "target"), strict=True):
            cells = [row[f"{side}_x"], row[f"{side}_y"]]
            x, y = numbers(cells, 2, f"{side}_x and {side}_y in {where}")
            points.append((x, y))
    yield from pairs.values()


def _from_json(path: Path) -> Iterator[Record]:
    content = read_json(path)
    if isinstance(content, dict):
        content = content.get("pairs")
    if not isinstance(content, list):
        raise DataError(f"expected a list of pairs in {path}, found {type(content).__name__}; mend the file")
    for number, pair in enumerate(content, 1):
        where = f"pair {number} of {path}"
        needed = ("source", "target", "source_points", "target_points")
        if not isinstance(pair, dict) or any(not pair.get(key) for key in needed):
            raise DataError(f"expected {', '.join(needed)} in {where}, found {str(pair)[:60]}; mend the file")
        points = [_points(pair[f"{side}_points"], side, where) for side in ("source", "target")]
        names = pair.get("keypoints") or [""] * len(points[0])
        if not len(points[0]) == len(points[1]) == len(names):
            raise DataError(
                f"expected as many source points as target points and keypoints in {where}, found "
                f"{len(points[0])}, {len(points[1])} and {len(names)}; mend the file"
            )
        yield {
            "source": str(pair["source"]),
            "target": str(pair["target"]),
            "split": str(pair.get("split") or ""),
            "where": where,
            "category": str(pair.get("category") or "own"),
            "keypoints": [str(name) for name in names],
            "points": tuple(points),
            "boxes": [_box(pair.get(f"{side}_box"), side, where) for side in ("source", "target")],
            "tags": {str(k): v for k, v in (pair.get("tags") or {}).items()},
        }


def _points(values: Any, side: str, where: str) -> list[Point]:
    if not isinstance(values, list):
        raise DataError(
            f"expected {side}_points of {where} as a list of [x, y], found {str(values)[:60]}; mend it"
        )
    found = [(-1, -1) if v is None else numbers(v, 2, f"a point of {side}_points in {where}") for v in values]
    return [(float(x), float(y)) for x, y in found]


def _box(value: Any, side: str, where: str) -> Box | None:
    if value in (None, "", []):
        return None
    return box(value.split() if isinstance(value, str) else value, f"{side}_box in {where}")
