"""Points of one image found in others, in a few lines.

matcher = Matcher.from_pretrained("tiny")
match = matcher.match("a.jpg", "b.jpg", [(120, 88), (40, 60)])
match.targets                # (2, 2), x and y in pixels of b.jpg
match.plot("match.png")

fitted = matcher.fit("a.jpg", [(120, 88)])
fitted.save("points.safetensors")                     # later, or in another process:
matcher.find(FittedPoints.load("points.safetensors"), "c.jpg")

dense = matcher.dense("a.jpg", "b.jpg", spacing=16).mutual(within=16)
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from diffcorr.backbones.base import Backbone
from diffcorr.config import instantiate, load_option
from diffcorr.correspondence import PromptFit, PromptFitRerank, TransferResult, build_method
from diffcorr.correspondence.prompt_fit import OnProgress
from diffcorr.data.geometry import check_inside, frame, image_size
from diffcorr.errors import ImageError
from diffcorr.fitted import FittedPoints, check_identity, identity_of, point_queries
from diffcorr.inputs import ImageLike, as_image, content_id, load_backbone, load_preset, name_of, override
from diffcorr.match import Floats, Match, at_size, grid_points
from diffcorr.types import UInt8Image


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
        backbone: str | os.PathLike[str] | Backbone = "tiny",
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
                local diffusers folder, a hub name ``owner/name``, or a model that is loaded already.
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
        name = preset or ("prompt_fit" if name_of(backbone) == "tiny" else "prompt_fit_paper")
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

    def fit(
        self, source: ImageLike, points: npt.ArrayLike, progress: OnProgress | None = None
    ) -> FittedPoints:
        """Fit points of an image, to be found in any number of others, now or later (`FittedPoints.save`).

        Args:
            source: path, PIL image or array (see ``diffcorr.inputs.as_image``), of any size and aspect.
            points: (N, 2), (x, y) in pixels of the source as given (upright, where its EXIF flag
                turns it), pixel centres at +0.5.
            progress: told after every step; what it raises ends the fit.

        Raises:
            ImageError: an unreadable image, no points, or points that are no (N, 2) finite numbers
                or lie outside of the source.
        """
        image = as_image(source, "source")
        points_N2 = check_points(points, image)
        image_id = content_id(image)
        queries = point_queries(image_id, points_N2)
        # a caller's no_grad or inference_mode would leave the fit without gradients
        with torch.inference_mode(False), torch.enable_grad():
            self.method.fit(queries, {image_id: image}, progress)
        prompts = self.method.prompts(queries)
        kept = {name: self.method.embeddings.get(name) for name in {prompt.key[0] for prompt in prompts}}
        rows = [rounds[p.key[1]] for p in prompts if (rounds := kept[p.key[0]]) is not None]
        return FittedPoints(image, points_N2, tuple(prompts), torch.stack(rows), identity_of(self.method))

    def find(self, fitted: FittedPoints, target: ImageLike, heatmaps: bool = False) -> Match:
        """Find fitted points in a target; nothing is fitted.

        Args:
            fitted: of `fit`, or loaded (`FittedPoints.load`).
            target: as the source of `fit`.
            heatmaps: keep a map of every point, at the target's size, and of every layer.

        Raises:
            ImageError: an unreadable image.
            DiffcorrError: points that were fitted on another model or with other settings.
        """
        image = as_image(target, "target")
        check_identity(fitted, self.method)
        queries, source_id = fitted.queries, content_id(fitted.source)
        self.method.adopt(fitted.prompts, list(fitted.embeddings))
        with torch.inference_mode(False):
            self.method.fit(queries, {source_id: fitted.source})  # what a method needs beside embeddings
            found = self.method.locate(queries, image, f"image/{content_id(image)}", heatmaps)
        return _match(fitted, image, found, self.method)

    def match(
        self,
        source: ImageLike,
        target: ImageLike,
        points: npt.ArrayLike,
        heatmaps: bool = False,
        cycle: bool = False,
        progress: OnProgress | None = None,
    ) -> Match:
        """Find points of the source in the target.

        Args:
            source, points, progress: as in `fit`.
            target: as the source.
            heatmaps: as in `find`.
            cycle: also go the way back and tell how far from the point it ends (`Match.cycle_error`); fits
                every answer in the target.

        Raises:
            ImageError: as `fit`.
        """
        return self.match_all(source, [target], points, heatmaps, cycle, progress)[0]

    def match_all(
        self,
        source: ImageLike,
        targets: Iterable[ImageLike],
        points: npt.ArrayLike,
        heatmaps: bool = False,
        cycle: bool = False,
        progress: OnProgress | None = None,
    ) -> list[Match]:
        """Find points of the source in several targets, which are all read before anything is fitted.

        Arguments and errors are those of `match`. For more images than fit into memory: `fit` once, then
        `find` in each.
        """
        source_image = as_image(source, "source")
        images = [as_image(target, "target") for target in targets]
        fitted = self.fit(source_image, points, progress)
        found = [self.find(fitted, image, heatmaps) for image in images]
        return [self.go_back(match, progress) for match in found] if cycle else found

    def dense(
        self,
        source: ImageLike,
        target: ImageLike,
        spacing: float = 16,
        cycle: bool = True,
        progress: OnProgress | None = None,
    ) -> Match:
        """Find a grid of points, ``spacing`` pixels of the source apart.

        Args:
            source, target, progress: as in `match`.
            spacing: at least 1. The preset ``packed`` is meant for that many points.
            cycle: as in `match`; ``found.mutual(within=spacing)`` then keeps what both images agree on.

        Raises:
            ImageError: an unreadable image, or a spacing of less than a pixel.
        """
        image = as_image(source, "source")
        return self.match(image, target, grid_points(image, spacing), cycle=cycle, progress=progress)

    def go_back(self, match: Match, progress: OnProgress | None = None) -> Match:
        """The match with `Match.cycle_error`: answers are fitted in the target and found in the source."""
        again = self.find(self.fit(match.target, match.targets, progress), match.source)
        return replace(match, cycle_error=np.linalg.norm(again.targets - match.points, axis=1))


def _match(
    fitted: FittedPoints, target: UInt8Image, found: Sequence[TransferResult], method: PromptFit
) -> Match:
    """What was found as a match."""
    config = method.transfer_config
    square = frame(image_size(target), config.side or method.backbone.image_size, config.frame)
    names = list(found[0].layer_points)
    heatmaps = [at_size(r.heatmap, square, target) for r in found if r.heatmap is not None]
    return Match(
        fitted.source,
        target,
        fitted.points,
        np.array([r.point for r in found]),
        np.array([r.confidence for r in found]),
        {name: np.array([r.layer_points[name] for r in found]) for name in names},
        np.stack(heatmaps) if heatmaps else None,
        np.array([r.sharpness for r in found]),
        np.array([list(r.round_points.values()) for r in found]).swapaxes(0, 1),
        None,
        {name: np.stack([r.layer_maps[name].float().numpy() for r in found]) for name in found[0].layer_maps},
        square,
    )


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
