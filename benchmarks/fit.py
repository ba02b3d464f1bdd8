"""Seconds, FLOPs and memory per query, of every mode in turn."""

from __future__ import annotations

from typing import Any

import torch
from omegaconf import DictConfig

from benchmarks.measure import Measured, matmul_ceiling, take_turns
from benchmarks.modes import MODES, changed
from diffcorr.backbones.base import Backbone
from diffcorr.config import instantiate
from diffcorr.correspondence import PromptFit, build_method
from diffcorr.correspondence.pack import fit_batches
from diffcorr.data.partworld import PartWorldPairs

NUM_QUERIES, TURNS = 4, 3


def half(device: torch.device) -> str:
    """The precision of the fast modes: bf16, which a CPU without it only emulates."""
    if device.type == "cuda" or torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return "bfloat16"
    return "float32"


def bench_fit(config: DictConfig, modes: list[str], num_queries: int = NUM_QUERIES) -> list[dict[str, Any]]:
    """One record for each mode: the whole of it, and fit and transfer apart."""
    data = PartWorldPairs("val", num_pairs=1)
    pair = data.pairs[0]
    queries = pair.queries()[:num_queries]
    source, target = {pair.source_id: data.image(pair.source_id)}, data.image(pair.target_id)
    variant = instantiate(config.attention)
    backbones: dict[str, Backbone] = {}
    methods: dict[str, PromptFit] = {}
    dtypes: dict[str, str] = {}

    def built(name: str) -> PromptFit:
        method = build_method(
            instantiate(changed(config.method, MODES[name])), backbones[dtypes[name]], variant
        )
        assert isinstance(method, PromptFit)
        return method

    def fit(name: str) -> None:
        methods[name] = built(name)
        methods[name].fit(queries, source)

    def read(name: str) -> None:
        methods[name].locate(queries, target, pair.target_id)

    for name in modes:
        dtypes[name] = MODES[name].dtype or half(torch.device(config.backbone.device))
        if dtypes[name] not in backbones:
            backbones[dtypes[name]] = instantiate(config.backbone, dtype=dtypes[name])
        method = built(name)  # how large a pack can be is measured before anything is timed or counted
        fit_batches(method.backbone, method.fit_config, method.variant)
    works = {}
    for name in modes:
        works[f"{name} fit"] = lambda name=name: fit(name)
        works[f"{name} transfer"] = lambda name=name: read(name)
    measured = take_turns(works, TURNS)
    parts = {name: (measured[f"{name} fit"], measured[f"{name} transfer"]) for name in modes}
    ceilings = {d: matmul_ceiling(b.device, b.dtype) for d, b in backbones.items()}
    records = [
        _record(name, methods[name], dtypes[name], ceilings[dtypes[name]], parts, len(queries))
        for name in modes
    ]
    if torch.device(config.backbone.device).type == "cuda":
        # all that is allocated is counted there, weights of the other precision too
        weights = {d: sum(p.numel() * p.element_size() for p in b.parameters()) for d, b in backbones.items()}
        for record in records:
            record["peak_memory_bytes"] -= sum(weights.values()) - weights[record["dtype"]]
    return records


def _record(
    name: str,
    method: PromptFit,
    dtype: str,
    ceiling: float,
    parts: dict[str, tuple[Measured, Measured]],
    num_queries: int,
) -> dict[str, Any]:
    fit, read = parts[name]
    seconds, flops = fit.median + read.median, fit.flops + read.flops
    record: dict[str, Any] = {
        "mode": name,
        "backbone": method.backbone.name,
        "device": str(method.backbone.device),
        "dtype": dtype,
        "seconds_per_query": seconds / num_queries,
        "seconds_per_query_fit": fit.median / num_queries,
        "seconds_per_query_transfer": read.median / num_queries,
        "flops_per_query": flops / num_queries,
        "matmul_ceiling_share_fit": fit.flops / fit.median / ceiling,
        "peak_memory_bytes": max(m.peak_memory_bytes or 0 for m in (fit, read)) or None,
        "num_queries": num_queries,
        "rounds": method.fit_config.rounds,
        "steps": method.fit_config.steps,
        "num_crops": method.transfer_config.num_crops,
        "tf32": torch.backends.cuda.matmul.allow_tf32,
    }
    if "plain" in parts:
        plain = parts["plain"]
        record["ratio_to_plain"] = sum(m.median for m in plain) / seconds
        record["ratio_to_plain_fit"] = plain[0].median / fit.median
        record["flops_ratio"] = flops / sum(m.flops for m in plain)
    return record
