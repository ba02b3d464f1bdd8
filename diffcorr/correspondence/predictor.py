"""Correspondence by fitted prompts: fit once, store, and read in every target that is asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from typing import Protocol, Self

import torch
from torch import Tensor

from diffcorr.attention.base import AttentionVariant
from diffcorr.attention.mean import MeanAttention
from diffcorr.backbones.base import Backbone
from diffcorr.correspondence.base import check_pair
from diffcorr.correspondence.config import FitConfig, TransferConfig
from diffcorr.correspondence.grid import transfer_grid
from diffcorr.correspondence.prompt_fit import OnProgress, fit_prompts
from diffcorr.correspondence.prompts import Prompt, compose_prompts, to_front
from diffcorr.correspondence.transfer import TransferResult, transfer
from diffcorr.errors import DivergedError, check_finite
from diffcorr.types import Pair, PointPrediction, Query, UInt8Image


class Embeddings(Protocol):
    """Where fitted embeddings are kept, on disk or in memory."""

    def add(self, query_id: str, round: int, embedding: Tensor, losses: Tensor) -> None:
        """Keep one embedding (P, D) and its loss curve (steps,) under a prompt's key."""

    def get(self, query_id: str) -> Tensor | None:
        """All rounds (R, P, D) of a key, or None."""

    def missing(self, query_ids: Sequence[str], rounds: int) -> list[tuple[str, int]]:
        """What has still to be fitted."""

    def flush(self) -> None:
        """Make everything that was added durable."""


class MemoryEmbeddings:
    """Fitted embeddings of one process, gone at its end."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, int], Tensor] = {}

    def add(self, query_id: str, round: int, embedding: Tensor, losses: Tensor) -> None:
        """Keep one embedding (P, D).

        Raises:
            DivergedError: it is not finite.
        """
        check_finite(embedding, query_id, round)
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
        variant: how attention becomes a map; None = the mean over heads.
        fit: how embeddings are fitted.
        transfer: how they are read in the target.
        embeddings: where fitted embeddings are; what is missing is fitted when it is asked for.
        name: under which predictions are stored.
        read_variant: how attention becomes a map when fitted embeddings are read; None = ``variant``.

    Where queries share prompts (``FitConfig.share``), those that are first asked for together share:
    ask for all of a data set at once, as ``eval.py`` does, and results do not depend on the order of pairs.
    """

    def __init__(
        self,
        backbone: Backbone,
        variant: AttentionVariant | None = None,
        fit: FitConfig | None = None,
        transfer: TransferConfig | None = None,
        embeddings: Embeddings | None = None,
        name: str = "prompt_fit",
        read_variant: AttentionVariant | None = None,
    ) -> None:
        self.name = name
        self.backbone, self.variant = backbone, variant or MeanAttention()
        self.read_variant = read_variant or self.variant
        self.fit_config, self.transfer_config = fit or FitConfig(), transfer or TransferConfig()
        self.fit_config.check(backbone)
        self.transfer_config.check(backbone)
        self.embeddings: Embeddings = embeddings if embeddings is not None else MemoryEmbeddings()
        self._prompts: dict[str, list[tuple[Prompt, int]]] = {}  # of each query: prompts, place in them

    def identity(self) -> dict[str, object]:
        """What a fitted embedding depends on, beside the backbone's weights: for the store to compare."""
        layers = self.backbone.resolve_layers("cross", self.fit_config.layers)
        return {
            **self.fit_config.identity(),
            "layers": [layer.name for layer in layers],
            "image_size": self.backbone.image_size,
            "variant": repr(self.variant),
        }

    def reading(self, transfer: TransferConfig, variant: AttentionVariant) -> Self:
        """The same method with the same fitted embeddings, read in another way."""
        transfer.check(self.backbone)
        other = copy(self)
        other.transfer_config, other.read_variant = transfer, variant
        return other

    def prompts(self, queries: Sequence[Query]) -> list[Prompt]:
        """The prompts of these queries, each once however often a query is named."""
        new = {query.id: query for query in queries if query.id not in self._prompts}
        config = self.fit_config
        size = config.queries_per_prompt(self.backbone)
        for prompt in compose_prompts(list(new.values()), config.rounds, config.share, size):
            for place, (query, _) in enumerate(prompt.items):
                self._prompts.setdefault(query.id, []).append((prompt, place))
        named = {prompt.key: prompt for query in queries for prompt, _ in self._prompts[query.id]}
        return list(named.values())

    def missing(self, queries: Sequence[Query]) -> list[Prompt]:
        """Those of them that have still to be fitted."""
        prompts = self.prompts(queries)
        rounds = 1 + max((round for _, round in (p.key for p in prompts)), default=0)
        names = dict.fromkeys(prompt.key[0] for prompt in prompts)
        absent = set(self.embeddings.missing(list(names), rounds))
        return [prompt for prompt in prompts if prompt.key in absent]

    def adopt(self, prompts: Sequence[Prompt], embeddings: Sequence[Tensor]) -> None:
        """Take over prompts (P, D) that were fitted elsewhere with the same `identity`, and their queries.

        A query that has prompts here keeps them.
        """
        known = set(self._prompts)
        for prompt, embedding in zip(prompts, embeddings, strict=True):
            for place, (query, _) in enumerate(prompt.items):
                if query.id not in known:
                    self._prompts.setdefault(query.id, []).append((prompt, place))
            self.embeddings.add(*prompt.key, embedding, torch.zeros(0))

    def fit(
        self,
        queries: Sequence[Query],
        images: Mapping[str, UInt8Image],
        progress: OnProgress | None = None,
    ) -> None:
        """Fit what is missing, without a trainer; ``progress`` is told after every step and may end it.

        Raises:
            DivergedError: a fitted embedding is not finite; the others are kept.
        """
        prompts = self.missing(queries)
        result = fit_prompts(self.backbone, prompts, images, self.fit_config, self.variant, progress=progress)
        diverged: DivergedError | None = None
        for row, prompt in enumerate(prompts):
            try:
                self.embeddings.add(*prompt.key, result.embeddings[row].cpu(), result.losses[:, row])
            except DivergedError as error:  # the others are kept
                diverged = diverged or error
        self.embeddings.flush()
        if diverged is not None:
            raise diverged

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
        if not queries:
            return []
        prompts = self.prompts(queries)
        stored = {name: self.embeddings.get(name) for name in dict.fromkeys(p.key[0] for p in prompts)}

        def embedding(prompt: Prompt) -> Tensor:
            name, round = prompt.key
            kept = stored[name]
            assert kept is not None, "fit the queries first"
            return kept[round]

        read = self.transfer_config
        if read.crops == "grid":
            rows = {prompt.key: row for row, prompt in enumerate(prompts)}
            places = [[(rows[prompt.key], place) for prompt, place in self._prompts[q.id]] for q in queries]
            return transfer_grid(
                self.backbone,
                target,
                torch.stack([embedding(prompt) for prompt in prompts]),
                places,
                read,
                self.read_variant,
                target=target_id,
                heatmaps=heatmaps,
            )
        fronted = [
            torch.stack([to_front(embedding(p), item, self.fit_config) for p, item in self._prompts[q.id]])
            for q in queries
        ]
        return transfer(
            self.backbone,
            target,
            torch.stack(fronted),
            read,
            self.read_variant,
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
            PointPrediction(
                pair.pair_id, keypoint, query.id, *r.point, r.confidence, r.layer_points, r.round_points
            )
            for keypoint, query, r in zip(pair.keypoints, queries, found, strict=True)
        ]
