"""Which queries and rounds share a prompt, and which prompts are fitted together."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from diffcorr.correspondence.config import FitConfig
from diffcorr.types import Query


class FitItem(NamedTuple):
    """One random initialisation of one query."""

    query: Query
    round: int


class Prompt(NamedTuple):
    """What one embedding is fitted for: items of one image, item j on token ``FitConfig.token`` + j.

    Attributes:
        items: one in the papers' method; several where prompts are shared.
        key: under which the embedding is stored: (query id, round), or what the prompt's queries
            have in common and all their names.
    """

    items: tuple[FitItem, ...]
    key: tuple[str, int]

    @property
    def image_id(self) -> str:
        """The image of all items."""
        return self.items[0].query.image_id


def own_prompt(item: FitItem) -> Prompt:
    """The prompt of an item that shares with none."""
    return Prompt((item,), (item.query.id, item.round))


def compose_prompts(
    queries: Sequence[Query], rounds: int, share: str, queries_per_prompt: int
) -> list[Prompt]:
    """Prompts for all rounds of all queries, the same whatever the order of the queries.

    Args:
        queries: distinct.
        rounds: of each.
        share: see ``FitConfig``.
        queries_per_prompt: the queries of an image are split evenly into no more than this.
    """
    ordered = sorted(queries, key=lambda query: query.id)
    if share == "none":
        return [own_prompt(FitItem(query, round)) for query in ordered for round in range(rounds)]
    by_image: defaultdict[tuple[str, str], list[Query]] = defaultdict(list)
    for query in ordered:
        by_image[query.dataset, query.image_id].append(query)
    prompts: list[Prompt] = []
    for (dataset, image_id), members in by_image.items():
        count = -(-len(members) // queries_per_prompt)
        for part in range(count):
            group = members[part::count]
            name = f"{dataset}/{image_id}#{json.dumps([query.keypoint for query in group])}"
            items = [[FitItem(query, round) for query in group] for round in range(rounds)]
            if share == "image":
                prompts.append(Prompt(tuple(item for row in items for item in row), (name, 0)))
            else:
                prompts += [Prompt(tuple(row), (name, round)) for round, row in enumerate(items)]
    return prompts


def compose_packs(prompts: Sequence[Prompt], pack_size: int) -> list[list[Prompt]]:
    """Packs of prompts sorted by key, so that they do not depend on who asks."""
    ordered = sorted(prompts, key=lambda prompt: prompt.key)
    return [ordered[start : start + pack_size] for start in range(0, len(ordered), pack_size)]


def to_front(embedding_PD: Tensor, place: int, config: FitConfig) -> Tensor:
    """The same prompt with item ``place`` on ``config.token``.

    Cross-attention knows no order of tokens: exchanging two exchanges their columns, no more.
    """
    if not place:
        return embedding_PD
    swapped = embedding_PD.clone()
    first, other = config.token, config.token + place
    swapped[first], swapped[other] = embedding_PD[other], embedding_PD[first]
    return swapped
