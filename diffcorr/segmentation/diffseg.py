"""DiffSeg (Tian et al., CVPR 2024, arXiv 2308.12469): self-attention maps merged until they are masks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from diffcorr.errors import DiffcorrError, UnknownNameError
from diffcorr.segmentation.framing import Grid
from diffcorr.segmentation.grouper import AttentionGrouper
from diffcorr.segmentation.merge import MODES, Mode, anchor_distance, anchor_grid, merge, threshold_list
from diffcorr.segmentation.proposals import nearest, refine, suppress
from diffcorr.segmentation.reader import Graph
from diffcorr.segmentation.tau import choose_tau

Assign = Literal["highest", "nearest"]
ASSIGN: tuple[Assign, ...] = ("highest", "nearest")


@dataclass(frozen=True, kw_only=True)
class DiffSeg(AttentionGrouper):
    """Zero-shot segments from one pass of a frozen diffusion model.

    Args, beside those of `AttentionGrouper`:
        tau: threshold on the symmetric KL divergence in nats; a list gives one per iteration; ``auto``
            chooses it for each image by `choose_tau`.
        anchors: M; M x M maps start a proposal. More than a side of the graph has are cut to it.
        iterations: merging passes, ignored when `tau` is a list.
        mode: ``exact`` or ``reference``, see `diffcorr.segmentation.merge`.
        refine: K-means over all maps, from the proposals.
        assign: ``highest``: a pixel takes the proposal that is highest there, as in the paper, which favours
            small segments, for every proposal sums to 1. ``nearest``: it takes the proposal that the
            attention of its position is nearest to.

    Raises:
        DiffcorrError: a value outside of its range, or an unknown mode or assignment.
    """

    name: str = "diffseg"
    tau: float | Sequence[float] | Literal["auto"] = 0.9
    anchors: int = 16
    iterations: int = 3
    mode: Mode = "exact"
    refine: bool = False
    assign: Assign = "highest"

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.tau, str) and self.tau != "auto":
            raise DiffcorrError(f"expected tau as a number, a list of numbers or 'auto', found {self.tau!r}")
        threshold_list(1.0 if isinstance(self.tau, str) else self.tau, self.iterations)
        if self.mode not in MODES:
            raise UnknownNameError("merging mode", self.mode, MODES)
        if self.assign not in ASSIGN:
            raise UnknownNameError("assignment of pixels", self.assign, ASSIGN)
        if self.anchors < 1:
            raise DiffcorrError(f"expected one or more anchors, found {self.anchors}")

    @property
    def dtype(self) -> torch.dtype:
        """Of the graph: the authors' program is in double precision after its first pass."""
        return torch.float64 if self.mode == "reference" else torch.float32

    def cluster(self, values: Tensor, grid: Grid, num_segments: Sequence[int] | None = None) -> Tensor:
        """Proposals (B, K, hw), or the maps nearest to each; see `AttentionGrouper.cluster`."""
        return self._assigned(values, self.proposals(values, grid))

    def proposals(self, maps: Tensor, grid: Grid, distance: Tensor | None = None) -> Tensor:
        """Merge graphs (B, hw, hw) into proposals (B, K, hw), refined where asked; see `merge`.

        Args:
            maps: (B, hw, hw) affinity graphs.
            grid: (h, w).
            distance: of the anchors to all maps, where it is known already, see `anchor_distance`.
        """
        anchors = self.anchor_positions(grid)
        if isinstance(self.tau, str):
            _, proposals = choose_tau(
                maps, anchors, iterations=self.iterations, mode=self.mode, distance=distance
            )
        else:
            proposals = merge(
                maps, anchors, self.tau, iterations=self.iterations, mode=self.mode, distance=distance
            )
        return refine(maps, proposals) if self.refine else proposals

    @torch.no_grad()
    def sweep(
        self, graph: Graph, size: tuple[int, int], taus: Sequence[float | Sequence[float]]
    ) -> list[Tensor]:
        """The masks (H, W) int64 of one image under several thresholds, each as `group` gives it.

        What does not depend on the threshold is computed once.

        Args:
            graph: what was read of the image, see `affinity`.
            size: (H, W) of the masks.
            taus: thresholds in nats; an inner list gives one per iteration.
        """
        maps = graph.values[None]
        with torch.autocast(maps.device.type, enabled=False):
            distance = anchor_distance(maps, self.anchor_positions(graph.grid), mode=self.mode)
            masks = []
            for tau in taus:
                proposals = replace(self, tau=tau).proposals(maps, graph.grid, distance)
                masks.append(suppress(self._assigned(maps, proposals), graph.grid, size, graph.box)[0])
        return masks

    def anchor_positions(self, grid: Grid) -> Tensor:
        """Flat positions of the anchors on a graph of that grid."""
        return anchor_grid(grid, (min(self.anchors, grid[0]), min(self.anchors, grid[1])))

    def _assigned(self, maps: Tensor, proposals: Tensor) -> Tensor:
        return nearest(maps, proposals) if self.assign == "nearest" else proposals
