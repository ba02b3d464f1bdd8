"""What a matcher found: points of one image in another, with all that says how far to trust them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure

from diffcorr.data.geometry import Geometry, image_size
from diffcorr.errors import DiffcorrError, ImageError, UnknownNameError
from diffcorr.reports import draw_matches, save_figure
from diffcorr.types import UInt8Image

Floats = npt.NDArray[np.float64]
Maps = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Match:
    """Where points of a source image are in a target image.

    Attributes:
        source, target: RGB (H, W, 3) uint8, as they were read.
        points: (N, 2), (x, y) in pixels of the source.
        targets: (N, 2), (x, y) in pixels of the target.
        confidence: (N,) in [0, 1], the attention that the found pixel gives the fitted token; to be
            compared within one preset only.
        layer_points: layer name -> (N, 2), what each layer alone says.
        heatmaps: (N, H, W) float32 in [0, 1] at the target's size, the mean over layers, or None
            where they were not asked for.
        sharpness: (N,) in [0, 1], the share of the heatmap that lies around the found point.
        round_points: (R, N, 2), what each independently fitted round alone says.
        cycle_error: (N,) in pixels of the source, how far from the point its answer leads when it is fitted
            in the target and looked for in the source, or None where that was not asked for.
        layer_maps: layer name -> (N, side, side) on the square working image, beside `heatmaps`; see
            `layer_heatmap`.
        frame: how the target was brought to that square.
    """

    source: UInt8Image = field(repr=False)
    target: UInt8Image = field(repr=False)
    points: Floats
    targets: Floats
    confidence: Floats
    layer_points: Mapping[str, Floats] = field(repr=False)
    heatmaps: Maps | None = field(default=None, repr=False)
    sharpness: Floats | None = None
    round_points: Floats | None = field(default=None, repr=False)
    cycle_error: Floats | None = None
    layer_maps: Mapping[str, Maps] = field(default_factory=dict, repr=False)
    frame: Geometry | None = field(default=None, repr=False)

    def __len__(self) -> int:
        """N."""
        return len(self.points)

    @property
    def spread(self) -> Floats | None:
        """(N,), how far the rounds lie from the found point on average, in pixels of the target.

        None where there is one round, which has nothing to agree with.
        """
        if self.round_points is None or len(self.round_points) < 2:
            return None
        found: Floats = np.linalg.norm(self.round_points - self.targets, axis=2).mean(0)
        return found

    def select(self, keep: npt.ArrayLike) -> Self:
        """Some of the points only: (N,) booleans, or their numbers from 0."""
        rows = np.arange(len(self))[np.asarray(keep)]

        def of(values: npt.NDArray[Any] | None) -> Any:
            return None if values is None else values[rows]

        return replace(
            self,
            points=of(self.points),
            targets=of(self.targets),
            confidence=of(self.confidence),
            layer_points={name: of(points) for name, points in self.layer_points.items()},
            heatmaps=of(self.heatmaps),
            sharpness=of(self.sharpness),
            round_points=None if self.round_points is None else self.round_points[:, rows],
            cycle_error=of(self.cycle_error),
            layer_maps={name: of(maps) for name, maps in self.layer_maps.items()},
        )

    def mutual(self, within: float) -> Self:
        """The points that both images agree on: those whose way there and back ends within so many pixels.

        Raises:
            DiffcorrError: the way back was not asked for.
        """
        if self.cycle_error is None:
            raise DiffcorrError("expected a match with cycle errors, found none: match with cycle=True")
        return self.select(self.cycle_error <= within)

    def layer_heatmap(self, number: int, layer: str) -> Maps:
        """(H, W) of the target: where one layer alone sees point ``number`` (from 0).

        Raises:
            UnknownNameError: no such layer, or heatmaps were not asked for.
        """
        if layer not in self.layer_maps or self.frame is None:
            raise UnknownNameError("layer with heatmaps", layer, self.layer_maps)
        return at_size(self.layer_maps[layer][number], self.frame, self.target)

    def plot(self, path: str | os.PathLike[str] | None = None) -> Figure:
        """Both images with a line for every point; written to ``path`` as PNG where given.

        Raises:
            StoreError: the file cannot be written.
        """
        figure = draw_matches(self.source, self.target, self.points, self.targets)
        if path is not None:
            save_figure(figure, path)
        return figure

    def to_dict(self) -> dict[str, Any]:
        """Points, confidences and sizes (width, height) as plain values, ready for JSON."""
        extras = {"sharpness": self.sharpness, "spread": self.spread, "cycle_error": self.cycle_error}
        matches = [
            {
                "point": self.points[n].tolist(),
                "target": self.targets[n].tolist(),
                "confidence": float(self.confidence[n]),
                **{name: float(values[n]) for name, values in extras.items() if values is not None},
                "layers": {name: points[n].tolist() for name, points in self.layer_points.items()},
            }
            for n in range(len(self.points))
        ]
        return {
            "source_size": list(image_size(self.source)),
            "target_size": list(image_size(self.target)),
            "matches": matches,
        }


def at_size(heatmap: npt.ArrayLike, geometry: Geometry, target: UInt8Image) -> Maps:
    """A map of the square working image as (H, W) of the target, in [0, 1]."""
    left, top, right, bottom = geometry.destination
    shown = torch.as_tensor(heatmap)[None, None, top:bottom, left:right].float()
    sized: Maps = F.interpolate(shown, target.shape[:2], mode="bilinear")[0, 0].clamp(0, 1).numpy()
    return sized


def grid_points(image: UInt8Image, spacing: float) -> Floats:
    """Points (N, 2) of a square grid, ``spacing`` pixels apart and half of that from the border, row by row.

    Raises:
        ImageError: a spacing of less than a pixel.
    """
    if not spacing >= 1:
        raise ImageError(f"expected a grid spacing of at least 1 pixel, found {spacing:g}")
    width, height = image_size(image)
    xs, ys = (np.arange(min(spacing, side) / 2, side, spacing) for side in (width, height))
    return np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2)
