"""Fitted points in a file: found again in any number of images, without fitting."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from diffcorr.correspondence import FitItem, Prompt
from diffcorr.correspondence.predictor import PromptFit
from diffcorr.data.images import to_rgb
from diffcorr.errors import DiffcorrError, StoreError
from diffcorr.inputs import content_id
from diffcorr.stores.files import writable_folder, write_atomic
from diffcorr.types import Point, Query, UInt8Image

FORMAT = 1
DAMAGE = (SafetensorError, OSError, KeyError, IndexError, TypeError, ValueError)


@dataclass(frozen=True, eq=False)
class FittedPoints:
    """Points of an image and the prompts that were fitted to them.

    Attributes:
        source: RGB (H, W, 3) uint8.
        points: (N, 2), (x, y) in its pixels.
        prompts: what was fitted; where points share prompts, also for points that are not among `points`.
        embeddings: (M, P, D), of each prompt.
        identity: model and settings that they were fitted with, as plain values.
    """

    source: UInt8Image = field(repr=False)
    points: npt.NDArray[np.float64]
    prompts: tuple[Prompt, ...] = field(repr=False)
    embeddings: Tensor = field(repr=False)
    identity: Mapping[str, Any] = field(repr=False)

    @property
    def queries(self) -> list[Query]:
        """The points as queries, in their order."""
        return point_queries(content_id(self.source), self.points)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file: embeddings, the image, and all else as JSON in its header.

        Raises:
            StoreError: the file cannot be written.
        """
        buffer = io.BytesIO()
        Image.fromarray(self.source).save(buffer, format="PNG")
        tensors = {
            "embeddings": self.embeddings.contiguous(),
            "source_png": torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8),
        }
        about = {
            "format": FORMAT,
            "identity": self.identity,
            "points": self.points.tolist(),
            "prompts": [
                {"key": list(p.key), "items": [[*item.query.point, item.round] for item in p.items]}
                for p in self.prompts
            ],
        }
        target = Path(path)
        writable_folder(target.parent)
        write_atomic(target, lambda to: to.write_bytes(save(tensors, {"diffcorr": json.dumps(about)})))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote.

        Raises:
            StoreError: there is no such file, or it is another one.
        """
        try:
            with safe_open(os.fspath(path), "pt") as file:
                about = json.loads(file.metadata()["diffcorr"])
                embeddings, png = file.get_tensor("embeddings"), file.get_tensor("source_png")
            if about["format"] != FORMAT:
                raise ValueError(f"format {about['format']}")
            with Image.open(io.BytesIO(png.numpy().tobytes()), formats=("PNG",)) as picture:
                source = to_rgb(picture)
            points = np.array(about["points"], dtype=np.float64).reshape(-1, 2)
            image_id = content_id(source)

            def prompt(node: Mapping[str, Any]) -> Prompt:
                items = [((float(x), float(y)), int(round)) for x, y, round in node["items"]]
                queries = point_queries(image_id, [point for point, _ in items])
                members = [FitItem(q, round) for q, (_, round) in zip(queries, items, strict=True)]
                name, round = node["key"]
                return Prompt(tuple(members), (str(name), int(round)))

            prompts = tuple(prompt(node) for node in about["prompts"])
            there = {item.query.id for p in prompts for item in p.items}
            is_sound = embeddings.ndim == 3 and bool(torch.isfinite(embeddings).all())
            if not is_sound or len(embeddings) != len(prompts):
                raise ValueError("its embeddings do not fit its prompts")
            if not len(points) or not all(q.id in there for q in point_queries(image_id, points)):
                raise ValueError("a point has no prompt")
        except FileNotFoundError:
            raise StoreError(
                f"expected fitted points, found no file at {os.fspath(path)}: check the path"
            ) from None
        except DAMAGE as error:
            reason = " ".join(str(error).split())[:200]
            raise StoreError(
                "expected fitted points as FittedPoints.save writes them, found "
                f"{os.fspath(path)!r} ({reason}): fit and save them again"
            ) from error
        return cls(source, points, prompts, embeddings, about["identity"])


def point_queries(image_id: str, points: npt.ArrayLike) -> list[Query]:
    """Points (N, 2) of an image that is known by its content, as queries."""
    found: list[Point] = [(x, y) for x, y in np.asarray(points, dtype=np.float64).tolist()]
    return [Query("image", image_id, f"{x!r},{y!r}", (x, y)) for x, y in found]


def identity_of(method: PromptFit) -> dict[str, Any]:
    """What fitted embeddings depend on, as JSON gives it back."""
    about = {"backbone": method.backbone.fingerprint, **method.identity()}
    plain: dict[str, Any] = json.loads(json.dumps(about))
    return plain


def check_identity(fitted: FittedPoints, method: PromptFit) -> None:
    """Pass where points were fitted as this method fits.

    Raises:
        DiffcorrError: they were not; says what differs.
    """
    own = identity_of(method)
    for key in sorted(own.keys() | fitted.identity.keys()):
        found, wanted = fitted.identity.get(key), own.get(key)
        if found != wanted:
            raise DiffcorrError(
                f"expected points that were fitted with {key}={wanted!r}, found {found!r}: load the model "
                "and preset that fitted them"
            )
