"""Finished run folders, read for looking at: which there are, and their pairs with what was predicted."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
from matplotlib.figure import Figure

from diffcorr.errors import DiffcorrError, ProtocolError, StoreError, UnknownNameError
from diffcorr.metrics import Handling, PointProtocol, pair_columns
from diffcorr.reports import draw_matches
from diffcorr.reports.matches import is_right
from diffcorr.runs.report import PRESETS
from diffcorr.runs.score import load_protocols
from diffcorr.runs.stored import StoredMethod, StoredRun, all_data
from diffcorr.stores.predictions import read_predictions
from diffcorr.types import Pair, PairDataset, Point

DEPTH = 4
"""How far below the root run folders are looked for."""
MOST = 200
FILTERS = ("all pairs", "pairs with a wrong point", "pairs that are all right")


@dataclass(frozen=True)
class PairView:
    """One pair of a run as it is shown.

    Attributes:
        pair: which.
        points: (N, 2), predicted, (x, y) in pixels of the target; nan where there is none.
        right: (N,) under the protocol.
        layers: layer name -> (N, 2), nan where there is none.
    """

    pair: Pair
    points: npt.NDArray[np.float64]
    right: npt.NDArray[np.bool_]
    layers: dict[str, npt.NDArray[np.float64]]


class OpenRun:
    """The correspondence part of a run folder.

    Raises:
        DiffcorrError: no predictions, or data that are not there any more.
    """

    def __init__(self, folder: Path) -> None:
        self.run = StoredRun(folder)
        self.data: PairDataset = all_data([self.run], None, {})[0]
        self.columns = pair_columns(self.data.pairs)
        self.protocol = self._protocol()
        self._places: dict[tuple[str, int, str, str], list[int]] = {}
        handling = Handling(missing="skip", nan="skip", unknown="skip", duplicates="last")
        self.stored = {f"{s.method}, seed {s.seed}": s for s in self.run.match(self.columns, handling)}
        if not self.stored:
            raise StoreError(f"expected predictions of {self.data.name} pairs, found those of others alone")

    def _protocol(self) -> PointProtocol:
        """The first preset that the pairs can be scored under."""
        for protocol in load_protocols(PRESETS):
            try:
                protocol.threshold_lengths(self.columns)
                protocol.scales(self.columns)
            except ProtocolError:
                continue
            return protocol
        raise ProtocolError("no protocol fits these pairs")

    def method(self, name: str) -> StoredMethod:
        """The predictions of ``method, seed``.

        Raises:
            UnknownNameError: there are none.
        """
        if name not in self.stored:
            raise UnknownNameError("method of the run", name, self.stored)
        return self.stored[name]

    def right_of(self, stored: StoredMethod, place: int) -> npt.NDArray[np.bool_]:
        """Which points of a pair count as right, at the protocol's first alpha."""
        pair = self.columns.pairs[place]
        points = self._points(stored, place)
        radii = self.protocol.radii(pair, self.protocol.alphas[0])
        right = is_right(points, np.array(pair.target_points), radii)
        assert right is not None
        return right & np.isfinite(points).all(1)

    def places(self, stored: StoredMethod, which: str) -> list[int]:
        """Numbers of the pairs of a filter that have predictions.

        Raises:
            UnknownNameError: no such filter.
        """
        if which not in FILTERS:
            raise UnknownNameError("filter", which, FILTERS)
        key = (stored.method, stored.seed, stored.config_hash, which)
        if key in self._places:
            return self._places[key]
        found = self._places[key] = []
        for place in range(len(self.columns.pairs)):
            if not np.isfinite(self._points(stored, place)).any():
                continue
            if which == FILTERS[0] or self.right_of(stored, place).all() == (which == FILTERS[2]):
                found.append(place)
        return found

    def view(self, stored: StoredMethod, place: int) -> PairView:
        """One pair."""
        pair = self.columns.pairs[place]
        table = read_predictions(self.run.folder)
        for name, value in (
            ("method", stored.method),
            ("seed", stored.seed),
            ("config_hash", stored.config_hash),
            ("pair_id", pair.pair_id),
        ):
            table = table.filter(pc.equal(table[name], value))
        layers: dict[str, npt.NDArray[np.float64]] = {}
        for row in table.to_pylist():
            for point in row["layer_points"] or () if row["keypoint"] in pair.keypoints else ():
                own = layers.setdefault(point["layer"], np.full((len(pair.keypoints), 2), np.nan))
                own[pair.keypoints.index(row["keypoint"])] = point["x"], point["y"]
        return PairView(pair, self._points(stored, place), self.right_of(stored, place), layers)

    def draw(self, view: PairView, layer: str | None = None) -> Figure:
        """The pair with its points judged, all layers together or one alone.

        Raises:
            UnknownNameError: no such layer.
        """
        if layer is not None and layer not in view.layers:
            raise UnknownNameError("layer of the run", layer, view.layers)
        points = view.points if layer is None else view.layers[layer]
        drawn = np.flatnonzero(np.isfinite(points).all(1))
        pair, alpha = view.pair, self.protocol.alphas[0]

        def of(values: tuple[Point, ...]) -> list[Point]:
            return [values[k] for k in drawn]

        return draw_matches(
            self.data.image(pair.source_id),
            self.data.image(pair.target_id),
            of(pair.source_points),
            points[drawn],
            truth=of(pair.target_points),
            threshold=self.protocol.radii(pair, alpha),
            names=[pair.keypoints[k] for k in drawn],
            threshold_name=f"alpha {alpha:g}, protocol {self.protocol.name}",
        )

    def _points(self, stored: StoredMethod, place: int) -> npt.NDArray[np.float64]:
        start = self.columns.starts[place]
        points: npt.NDArray[np.float64] = stored.matched.points[
            start : start + len(self.columns.pairs[place].keypoints)
        ]
        return points


class RunFolders:
    """The run folders below a root, and nothing outside of it.

    Args:
        root: need not be there.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._open = lru_cache(maxsize=4)(lambda folder, _: OpenRun(folder))

    def names(self) -> list[str]:
        """Folders with stored predictions, relative to the root, at most `MOST`."""
        found = []
        for depth in range(1, DEPTH + 1):
            for config in sorted(self.root.glob("/".join(["*"] * depth + ["config-correspondence.yaml"]))):
                folder = config.parent
                if any((folder / "predictions").glob("predictions-*")) and self._is_inside(folder):
                    found.append(str(folder.relative_to(self.root)))
        return found[:MOST]

    def folder(self, name: str) -> Path:
        """The folder of that name.

        Raises:
            DiffcorrError: it does not lie below the root, or holds no run.
        """
        folder = self.root / name
        if not name or "\0" in name or not self._is_inside(folder) or not folder.is_dir():
            raise DiffcorrError(f"expected a run folder below {self.root.name}, found {name!r}: choose one")
        return folder

    def open(self, name: str) -> OpenRun:
        """The run of that name, read anew where predictions came.

        Raises:
            DiffcorrError: as `folder` and `OpenRun`.
        """
        folder = self.folder(name)
        shards = tuple(sorted(path.name for path in (folder / "predictions").glob("predictions-*")))
        return self._open(folder, shards)

    def _is_inside(self, folder: Path) -> bool:
        """Whether it lies below the root where links are followed."""
        return self.root.resolve() in folder.resolve().parents
