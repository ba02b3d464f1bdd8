"""Normalised cuts of features or of self-attention, as in DiffCut (Couairon et al., NeurIPS 2024)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffcorr.backbones.base import Backbone, LayerInfo, StopForward
from diffcorr.errors import DiffcorrError, LayerError, UnknownNameError
from diffcorr.segmentation.base import CountsFrom
from diffcorr.segmentation.framing import Grid
from diffcorr.segmentation.grouper import AttentionGrouper
from diffcorr.segmentation.kmeans_attention import check_num_segments, counts_of_images
from diffcorr.segmentation.normalized_cut import cosine_affinity, kway_cut, recursive_cut
from diffcorr.segmentation.proposals import memberships

Signal = Literal["features", "attention"]
SIGNALS: tuple[Signal, ...] = ("features", "attention")


@dataclass(frozen=True, kw_only=True)
class NCut(AttentionGrouper):
    """Cuts the graph of similarities between positions, then gives every pixel to the most alike part.

    Args, beside those of `AttentionGrouper`:
        signal: what is alike: ``features``, the output of one self-attention layer, as in DiffCut, or
            ``attention``, the rows of the affinity graph.
        feature_layer: index or name of the layer whose output is read; by default the last of the down path,
            as in DiffCut. `layers` and `sides` are for the other signal.
        alpha: exponent of the similarities, see `cosine_affinity`.
        num_segments: ``null`` cuts recursively; a number cuts into so many at once; ``classes`` into as many
            as the image's label has classes.
        tau: bound on the cost of a further cut, 0..2, where it is recursive.
        restarts: k-means++ starts of a cut into K.

    Raises:
        DiffcorrError: a value outside of its range, or an unknown signal.
    """

    name: str = "ncut"
    signal: Signal = "features"
    feature_layer: int | str | None = None
    alpha: float = 10.0
    num_segments: int | Literal["classes"] | None = None
    tau: float = 0.5
    restarts: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.signal not in SIGNALS:
            raise UnknownNameError("signal", self.signal, SIGNALS)
        if self.num_segments is not None:
            check_num_segments(self.num_segments)
        if not 0 < self.tau <= 2 or self.alpha <= 0:
            raise DiffcorrError(
                f"expected 0 < tau <= 2 and a positive alpha, found tau={self.tau}, alpha={self.alpha}"
            )

    @property
    def counts_from(self) -> CountsFrom:
        """``labels`` where the labels' classes say how many."""
        return "labels" if self.num_segments == "classes" else "image"

    def cluster(self, values: Tensor, grid: Grid, num_segments: Sequence[int] | None = None) -> Tensor:
        """How alike each position is to the mean of each part; see `AttentionGrouper.cluster`."""
        values = F.normalize(values.float(), dim=-1)
        scores = []
        counts: Sequence[int | None] = [None] * len(values)
        if self.num_segments is not None:
            counts = counts_of_images(self.name, self.num_segments, num_segments, values)
        for own, count in zip(values, counts, strict=True):
            affinity = cosine_affinity(own, self.alpha)
            if count is None:
                labels = recursive_cut(affinity, self.tau, self.seed)
            else:
                labels = kway_cut(affinity, count, restarts=self.restarts, seed=self.seed)
            members = memberships(labels, int(labels.max()) + 1, own.dtype)
            centres = members @ own / members.sum(1, keepdim=True)
            # NaN, which is no segment, for a part that K-means left without nodes
            scores.append(centres @ own.T)
        return torch.nn.utils.rnn.pad_sequence(scores, batch_first=True, padding_value=torch.nan)

    def _layers(self, backbone: Backbone) -> list[LayerInfo]:
        if self.signal == "attention":
            return super()._layers(backbone)
        if self.feature_layer is not None:
            return list(backbone.resolve_layers("self", [self.feature_layer]))
        down = [layer for layer in backbone.layers("self") if layer.name.startswith("down_blocks")]
        if not down:
            raise LayerError(
                f"expected self-attention in the down path of {backbone.name}, found none: set feature_layer"
            )
        return down[-1:]

    def _identity(self, backbone: Backbone) -> dict[str, object]:
        # attention is the same for all groupers, and what one has cached serves the others
        kind = {} if self.signal == "attention" else {"signal": self.signal}
        return {**super()._identity(backbone), **kind}

    def _values(self, latents: Tensor, window: tuple[slice, slice], grid: Grid, backbone: Backbone) -> Tensor:
        if self.signal == "attention":
            return super()._values(latents, window, grid, backbone)
        (layer,) = self._layers(backbone)
        features = attention_output(backbone, layer, latents, self.timestep)
        return features.float().unflatten(1, grid)[:, window[0], window[1]].flatten(1, 2)


def attention_output(backbone: Backbone, layer: LayerInfo, latents: Tensor, timestep: int) -> Tensor:
    """What a self-attention layer adds to the features, before it is added: (B, hw, D).

    The prompt is empty, and nothing after the layer is run.

    Args:
        backbone: frozen model.
        layer: one of its layers.
        latents: (B, c, h, w).
        timestep: 0..999.
    """
    kept: list[Tensor] = []

    def keep(module: nn.Module, args: Any, output: Tensor) -> None:
        kept.append(output)
        raise StopForward

    handle = backbone.attention_modules()[layer.name].register_forward_hook(keep)
    try:
        backbone.denoise(latents, timestep, backbone.null_prompt())
    finally:
        handle.remove()
    return kept[0]
