"""Correspondence by fitted prompts: fit once, store, and read in every target that is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from diffcorr.attention.base import AttentionVariant
from diffcorr.attention.mean import MeanAttention
from diffcorr.backbones.base import Backbone
from diffcorr.correspondence.base import check_pair
from diffcorr.correspondence.config import FitConfig, TransferConfig
from diffcorr.correspondence.prompt_fit import FitItem, fit_prompts
from diffcorr.correspondence.transfer import TransferResult, transfer
from diffcorr.types import Pair, PointPrediction, Query, UInt8Image


class Embeddings(Protocol):
    """Where fitted embeddings are kept, on disk or in memory."""

    def add(self, query_id: str, round: int, embedding: Tensor, losses: Tensor) -> None:
        """Keep one embedding (P, D) and its loss curve (steps,)."""

    def get(self, query_id: str) -> Tensor | None:
        """All rounds (R, P, D) of a query, or None."""

    def missing(self, query_ids: Sequence[str], rounds: int) -> list[tuple[str, int]]:
        """What has still to be fitted."""

    def flush(self) -> None:
        """Make everything that was added durable."""


class MemoryEmbeddings:
    """Fitted embeddings of one process, gone at its end."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, int], Tensor] = {}

    def add(self, query_id: str, round: int, embedding: Tensor, losses: Tensor) -> None:
        """Keep one embedding (P, D)."""
        self._kept[query_id, round] = embedding

    def get(self, query_id: str) -> Tensor | None:
        """All rounds (R, P, D) of a query, or None."""
        rounds = sorted(round for key, round in self._kept if key == query_id)
        return torch.stack([self._kept[query_id, round] for round in rounds]) if rounds else None

    def missing(self, query_ids: Sequence[str], rounds: int) -> list[tuple[str, int]]:
        """What has still to be fitted."""
        wanted = [(query_id, round) for query_id in query_ids for round in range(rounds)]
        return [item for item in wanted if item not in self._kept]

    def flush(self) -> None:
        """Nothing to do."""


class PromptFit:
    """Prompt fitting (Hedlin et al. 2023) as a correspondence method.

    Args:
        backbone: frozen.
        variant: how heads become a map; None = their mean.
        fit: how embeddings are fitted.
        transfer: how they are read in the target.
        embeddings: where fitted embeddings are; what is missing is fitted when it is asked for.
        name: under which predictions are stored.
    """

    def __init__(
        self,
        backbone: Backbone,
        variant: AttentionVariant | None = None,
        fit: FitConfig | None = None,
        transfer: TransferConfig | None = None,
        embeddings: Embeddings | None = None,
        name: str = "prompt_fit",
    ) -> None:
        self.name = name
        self.backbone, self.variant = backbone, variant or MeanAttention()
        self.fit_config, self.transfer_config = fit or FitConfig(), transfer or TransferConfig()
        self.fit_config.check(backbone)
        self.transfer_config.check(backbone)
        self.embeddings: Embeddings = embeddings if embeddings is not None else MemoryEmbeddings()

    def identity(self) -> dict[str, object]:
        """What a fitted embedding depends on, beside the backbone: for the store to compare."""
        return {**self.fit_config.identity(), "variant": repr(self.variant)}

    def missing(self, queries: Sequence[Query]) -> list[FitItem]:
        """What has still to be fitted of these queries, each once however often it is named."""
        by_id = {query.id: query for query in queries}
        return [
            FitItem(by_id[key], round)
            for key, round in self.embeddings.missing(list(by_id), self.fit_config.rounds)
        ]

    def fit(self, queries: Sequence[Query], images: Mapping[str, UInt8Image]) -> None:
        """Fit what is missing, without a trainer."""
        items = self.missing(queries)
        result = fit_prompts(self.backbone, items, images, self.fit_config, self.variant)
        for row, (query, round) in enumerate(items):
            self.embeddings.add(query.id, round, result.embeddings[row].cpu(), result.losses[:, row])
        self.embeddings.flush()

    def locate(
        self, queries: Sequence[Query], target: UInt8Image, target_id: str, heatmaps: bool = False
    ) -> list[TransferResult]:
        """Read fitted queries in a target image.

        Args:
            queries: all of them fitted.
            target: RGB image of any size.
            target_id: its identity, from which the random numbers of the reading derive.
            heatmaps: keep the maps.
        """
        rounds = self.fit_config.rounds
        fitted = [self.embeddings.get(query.id) for query in queries]
        stacked = [rounds_RPD[:rounds] for rounds_RPD in fitted if rounds_RPD is not None]
        assert len(stacked) == len(queries), "fit the queries first"
        if not stacked:
            return []
        return transfer(
            self.backbone,
            target,
            torch.stack(stacked),
            self.transfer_config,
            self.variant,
            keys=[query.id for query in queries],
            target=target_id,
            heatmaps=heatmaps,
        )

    def predict(self, pair: Pair, source: UInt8Image, target: UInt8Image) -> list[PointPrediction]:
        """Where the pair's keypoints are in the target; fits first what no store has.

        Confidence: the attention that the found pixel gives the fitted token.
        """
        check_pair(pair, source, target)
        queries = pair.queries()
        self.fit(queries, {pair.source_id: source})
        found = self.locate(queries, target, f"{pair.dataset}/{pair.target_id}")
        return [
            PointPrediction(pair.pair_id, keypoint, query.id, *r.point, r.confidence, r.layer_points)
            for keypoint, query, r in zip(pair.keypoints, queries, found, strict=True)
        ]
