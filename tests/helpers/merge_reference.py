"""Merging by symmetric KL divergence as literally as the paper states it: scalars and loops only."""

from __future__ import annotations

import math


def symmetric_kl(p: list[float], q: list[float]) -> float:
    forward = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    backward = sum(b * math.log(b / a) for a, b in zip(p, q, strict=True))
    return (forward + backward) / 2


def mean(maps: list[list[float]]) -> list[float]:
    return [sum(values) / len(maps) for values in zip(*maps, strict=True)]


def merge(maps: list[list[float]], anchors: list[int], taus: list[float]) -> list[list[float]]:
    proposals = [mean([m for m in maps if symmetric_kl(maps[a], m) < taus[0]]) for a in anchors]
    for tau in taus[1:]:
        merged, taken = [], set()
        for i, start in enumerate(proposals):
            if i in taken:
                continue
            group = [j for j, other in enumerate(proposals) if symmetric_kl(start, other) < tau]
            taken.update(group)
            merged.append(mean([proposals[j] for j in group]))
        proposals = merged
    return proposals
