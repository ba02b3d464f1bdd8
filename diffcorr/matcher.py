"""Points of one image found in another, in a few lines.

matcher = Matcher.from_pretrained("tiny")
match = matcher.match("a.jpg", "b.jpg", [(120, 88), (40, 60)])
match.targets                # (2, 2), x and y in pixels of b.jpg
match.plot("match.png")
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from torch import Tensor

from diffcorr.backbones.base import Backbone
from diffcorr.config import instantiate, load_option
from diffcorr.correspondence import PromptFit, PromptFitRerank, build_method
from diffcorr.data.geometry import check_inside, frame, image_size
from diffcorr.errors import ImageError
from diffcorr.inputs import ImageLike, as_image, content_id, load_backbone, load_preset, override
from diffcorr.reports import draw_matches, save_figure
from diffcorr.types import Query, UInt8Image

Floats = npt.NDArray[np.float64]


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
    """

    source: UInt8Image = field(repr=False)
    target: UInt8Image = field(repr=False)
    points: Floats
    targets: Floats
    confidence: Floats
    layer_points: Mapping[str, Floats] = field(repr=False)
    heatmaps: npt.NDArray[np.float32] | None = field(default=None, repr=False)

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
        matches = [
            {
                "point": self.points[n].tolist(),
                "target": self.targets[n].tolist(),
                "confidence": float(self.confidence[n]),
                "layers": {name: points[n].tolist() for name, points in self.layer_points.items()},
            }
            for n in range(len(self.points))
        ]
        return {
            "source_size": list(image_size(self.source)),
            "target_size": list(image_size(self.target)),
            "matches": matches,
        }


class Matcher:
    """Finds points of one image in others by prompt fitting (Hedlin et al. 2023).

    Fitted points are remembered, so that looking for the same ones in a further target fits nothing.
    Random numbers come from the seed and, for each point, from the pixels of the images and the
    point: what else is asked, before or together with it, changes no more than rounding.

    Args:
        method: prompt fitting on its backbone.
    """

    def __init__(self, method: PromptFit) -> None:
        self.method = method

    @classmethod
    def from_pretrained(
        cls,
        backbone: str | os.PathLike[str] = "tiny",
        preset: str | None = None,
        device: str | torch.device = "cpu",
        dtype: str | torch.dtype = "float32",
        seed: int = 0,
        attention: str = "mean",
        **overrides: object,
    ) -> Matcher:
        """A matcher on a model that is loaded by name.

        Args:
            backbone: ``"tiny"`` (ships with the package), another name of ``configs/backbone``, a
                local diffusers folder, or a hub name ``owner/name``.
            preset: name in ``configs/method``, such as ``packed`` or ``prompt_fit_rerank``; None =
                ``prompt_fit``, tuned for the embedded model, on ``tiny``, and ``prompt_fit_paper`` on
                every other.
            device: where to compute.
            dtype: of the frozen weights.
            seed: of all random numbers.
            attention: name in ``configs/attention``, how heads become one map; the preset
                ``prompt_fit_reference`` has its own.
            overrides: values of the preset to change, such as ``rounds=2, steps=40, num_crops=8,
                layers=[6, 7]``: fields of ``FitConfig``, ``TransferConfig`` and the attention. What
                both the fit and the reading have, such as ``timestep``, is set in both.

        Raises:
            UnknownNameError: an unknown backbone, preset, attention, setting or layer; lists those known.
            BackboneError: a folder that holds no diffusion model.
            DiffcorrError: a value out of its range, or a device that is not there.
        """
        name = preset or ("prompt_fit" if os.fspath(backbone) == "tiny" else "prompt_fit_paper")
        root = {"attention": load_option("attention", attention), "seed": seed}
        node = load_preset(name, (PromptFit.__name__, PromptFitRerank.__name__), root)
        override([node.fit, node.transfer, node.variant, *filter(None, [node.get("features")])], overrides)
        build = instantiate(node)  # first: reading the weights takes longer than finding a slip
        method = build_method(build, load_backbone(backbone, device, dtype), instantiate(node.variant))
        assert isinstance(method, PromptFit)
        return cls(method)

    @property
    def backbone(self) -> Backbone:
        """The frozen model."""
        return self.method.backbone

    def match(
        self, source: ImageLike, target: ImageLike, points: npt.ArrayLike, heatmaps: bool = False
    ) -> Match:
        """Find points of the source in the target.

        Args:
            source, target: path, PIL image or array (see ``diffcorr.inputs.as_image``), of any size
                and aspect.
            points: (N, 2), (x, y) in pixels of the source as given (upright, where its EXIF flag
                turns it), pixel centres at +0.5.
            heatmaps: keep a map of every point, at the target's size.

        Raises:
            ImageError: an unreadable image, no points, or points that are no (N, 2) finite numbers
                or lie outside of the source.
        """
        source_image, target_image = as_image(source, "source"), as_image(target, "target")
        points_N2 = check_points(points, source_image)
        source_id = content_id(source_image)
        queries = [Query("image", source_id, f"{x!r},{y!r}", (x, y)) for x, y in points_N2.tolist()]
        # a caller's no_grad or inference_mode would leave the fit without gradients
        with torch.inference_mode(False), torch.enable_grad():
            self.method.fit(queries, {source_id: source_image})
            found = self.method.locate(queries, target_image, f"image/{content_id(target_image)}", heatmaps)
        maps = [self._at_size(r.heatmap, target_image) for r in found if r.heatmap is not None]
        return Match(
            source_image,
            target_image,
            points_N2,
            np.array([r.point for r in found]),
            np.array([r.confidence for r in found]),
            {name: np.array([r.layer_points[name] for r in found]) for name in found[0].layer_points},
            np.stack(maps) if heatmaps else None,
        )

    def _at_size(self, heatmap: Tensor, target: UInt8Image) -> npt.NDArray[np.float32]:
        """A map of the working square as (H, W) of the target."""
        geometry = frame(image_size(target), len(heatmap), self.method.transfer_config.frame)
        left, top, right, bottom = geometry.destination
        shown = heatmap[None, None, top:bottom, left:right].float()
        return F.interpolate(shown, target.shape[:2], mode="bilinear")[0, 0].clamp(0, 1).numpy()


def check_points(points: npt.ArrayLike, image: UInt8Image) -> Floats:
    """Points as (N, 2) float64.

    Raises:
        ImageError: no points, another shape, what is no finite number, or a point outside of the image.
    """
    try:
        array = np.asarray(points, dtype=np.float64).copy()
    except (TypeError, ValueError):
        raise ImageError(
            "expected points as (N, 2) numbers, found something else: give [(x, y), ...]"
        ) from None
    if not array.size:
        raise ImageError("expected at least one point, found none: give [(x, y), ...]")
    if array.ndim != 2 or array.shape[1] != 2:
        raise ImageError(f"expected points as (N, 2), found {array.shape}: give [(x, y), ...]")
    for number, (x, y) in enumerate(array.tolist(), start=1):
        if not np.isfinite((x, y)).all():
            raise ImageError(f"expected finite points, found ({x:g}, {y:g}) as number {number}: leave it out")
        check_inside((x, y), image_size(image), f"point {number}")
    return array
