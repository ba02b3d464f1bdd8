"""DiffSeg (Tian et al., CVPR 2024, arXiv 2308.12469): self-attention maps merged until they are masks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from diffcorr.attention.capture import capture
from diffcorr.attention.mean import MeanAttention
from diffcorr.backbones.base import Backbone, LayerSpec
from diffcorr.data.geometry import frame, image_size, image_to_tensor
from diffcorr.errors import BackboneError, DiffcorrError, UnknownNameError
from diffcorr.segmentation.aggregate import aggregate, mean_by_side
from diffcorr.segmentation.base import Mask
from diffcorr.segmentation.merge import MODES, Mode, anchor_grid, merge, threshold_list
from diffcorr.segmentation.proposals import refine, suppress
from diffcorr.types import UInt8Image


@dataclass(frozen=True)
class DiffSeg:
    """Zero-shot segments from one pass of a frozen diffusion model.

    Args:
        tau: threshold on the symmetric KL divergence in nats; a list gives one per iteration.
        anchors: M; M x M maps start a proposal. More than the graph has are cut to its side.
        iterations: merging passes, ignored when `tau` is a list.
        mode: ``exact`` or ``reference``, see `diffcorr.segmentation.merge`.
        refine: K-means over all maps, from the proposals.
        timestep: what the model is told of the noise, 0..999.
        add_noise: whether noise of that timestep really is added; the authors add none.
        layers: self-attention layers that are read, see `Backbone.resolve_layers`.
        sides: resolutions that are used, e.g. [64, 32], or how many of the largest; by default all that
            the layers have.
        antialias: whether an image that shrinks to the model's side is low-passed; the authors do without.
        seed: of the noise; the same noise for every image, so that images do not depend on their order.

    Raises:
        DiffcorrError: a value outside of its range, or an unknown mode.
    """

    name: str = "diffseg"
    tau: float | Sequence[float] = 0.9
    anchors: int = 16
    iterations: int = 3
    mode: Mode = "exact"
    refine: bool = False
    timestep: int = 300
    add_noise: bool = False
    layers: LayerSpec = "all"
    sides: Sequence[int] | int | None = None
    antialias: bool = True
    seed: int = 0
    needs_backbone = True
    needs_num_segments = False

    def __post_init__(self) -> None:
        threshold_list(self.tau, self.iterations)
        if isinstance(self.sides, int) and self.sides < 1:
            raise DiffcorrError(f"expected one or more sides, found sides={self.sides}; null uses all")
        if self.mode not in MODES:
            raise UnknownNameError("merging mode", self.mode, MODES)
        if self.anchors < 1 or not 0 <= self.timestep <= 999:
            raise DiffcorrError(
                "expected one or more anchors and a timestep in 0..999, "
                f"found anchors={self.anchors}, timestep={self.timestep}"
            )

    def segment(
        self,
        images: Sequence[UInt8Image],
        *,
        backbone: Backbone | None = None,
        num_segments: Sequence[int] | None = None,
    ) -> list[Mask]:
        """Masks of as many segments as there are, see `SegmentationMethod.segment`.

        Images are stretched to the model's square; masks come back at their own size.

        Raises:
            BackboneError: no backbone.
            LayerError: unknown layers, or attention that is no distribution.
            UnknownNameError: a side that the layers do not have.
        """
        if backbone is None:
            raise BackboneError(f"{self.name} reads self-attention and needs a backbone; none was given")
        graphs = self.affinity(images, backbone)
        return [
            self.group(graph, image.shape[:2]).cpu().numpy()
            for graph, image in zip(graphs, images, strict=True)
        ]

    @torch.no_grad()
    def affinity(self, images: Sequence[UInt8Image], backbone: Backbone) -> Tensor:
        """The affinity graph of each image, (B, hw, hw); what a sweep over thresholds can keep."""
        side = backbone.image_size
        pixels = [image_to_tensor(image, frame(image_size(image), side), self.antialias) for image in images]
        latents = backbone.encode(torch.stack(pixels).to(backbone.device, backbone.dtype))
        if self.add_noise:
            generator = torch.Generator().manual_seed(self.seed)
            noise = torch.randn(latents.shape[1:], generator=generator).to(latents)
            latents = backbone.add_noise(latents, noise.expand_as(latents), self.timestep)
        with capture(backbone, self.layers, "self", variant=MeanAttention()) as maps:
            backbone.denoise(latents, self.timestep, backbone.null_prompt())
        by_side = mean_by_side(layer.tensor for layer in maps.values())
        by_side = {s: by_side[s] for s in self._used(by_side)}
        return aggregate(by_side, dtype=torch.float64 if self.mode == "reference" else torch.float32)

    def _used(self, known: Iterable[int]) -> list[int]:
        """Which of the known resolutions are used."""
        largest = sorted(known, reverse=True)
        if self.sides is None or isinstance(self.sides, int):
            return largest[: self.sides]
        if unknown := [s for s in self.sides if s not in largest]:
            raise UnknownNameError("attention resolution", unknown[0], largest)
        return list(self.sides)

    @torch.no_grad()
    def group(self, graph: Tensor, size: tuple[int, int]) -> Tensor:
        """Merge one graph (hw, hw) into a mask (H, W) int64 of proposals; one may have no pixel."""
        return suppress(self.proposals(graph), size)

    def proposals(self, graph: Tensor) -> Tensor:
        """Merge one graph (hw, hw) into proposals (K, hw), refined where asked."""
        side = round(len(graph) ** 0.5)
        anchors = anchor_grid(side, min(self.anchors, side)).to(graph.device)
        # distances are small differences of large sums, which a trainer's low precision would swallow
        with torch.autocast(graph.device.type, enabled=False):
            proposals = merge(graph, anchors, self.tau, iterations=self.iterations, mode=self.mode)
            return refine(graph, proposals) if self.refine else proposals
