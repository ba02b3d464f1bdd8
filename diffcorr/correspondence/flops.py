"""What a run of prompt fitting costs in floating-point operations, counted without running it.

The pieces (a pass of the model whole and up to the last layer read, its backward, the autoencoder) are
counted on fake tensors, which have shapes only, and multiplied by how often a configuration runs them.
Solving for a token and reading it in maps that are there are far below a pass, and are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from math import isqrt
from typing import NamedTuple

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from diffcorr.attention.capture import capture
from diffcorr.backbones.base import Backbone, LayerSpec
from diffcorr.correspondence.config import FitConfig, TransferConfig
from diffcorr.correspondence.crops import bank_positions, crop_side


class Pieces(NamedTuple):
    """FLOPs of one sample: encoding a crop, a pass, a pass up to the last layer read, its way back."""

    encode: float
    whole: float
    early: float
    backward: float


@contextmanager
def counted() -> Iterator[FlopCounterMode]:
    """Counts FLOPs; attention as the two products that it consists of, for fused ones are not all known."""
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        yield counter


def count_pieces(backbone: Backbone, layers: LayerSpec, token: int = 1, timestep: int = 140) -> Pieces:
    """The pieces of a backbone that is read at ``layers``.

    Raises:
        UnknownNameError: a layer that the backbone does not have.
    """
    found: dict[str, float] = {}
    with FakeTensorMode(allow_non_fake_inputs=True):
        image = torch.zeros(1, 3, backbone.image_size, backbone.image_size)
        with counted() as counter, torch.no_grad():
            latents = backbone.encode(image)
        found["encode"] = counter.get_total_flops()
        for name, early in (("whole", False), ("early", True)):
            embeds = torch.zeros(1, *backbone.embedding_shape, requires_grad=True)
            with counted() as counter, capture(backbone, layers, token=token, stop_early=early) as maps:
                backbone.denoise(latents, timestep, embeds)
            found[name] = counter.get_total_flops()
        with counted() as counter:
            torch.stack([m.tensor.sum() for m in maps.values()]).sum().backward()
        found["backward"] = counter.get_total_flops()
    return Pieces(**found)


def fit_flops(backbone: Backbone, each: Pieces, config: FitConfig, queries_of_images: Iterable[int]) -> float:
    """FLOPs of fitting all queries; at most these: crops may repeat, prompts stop early, stems be shared.

    Args:
        backbone: the model.
        each: its pieces.
        config: how to fit.
        queries_of_images: of each source image the number of distinct queries.
    """
    side = config.side or backbone.image_size
    ahead = each.early if config.stop_early else each.whole
    total = 0.0
    for num_queries in queries_of_images:
        prompts = config.rounds * num_queries
        if config.share != "none":
            prompts = -(-num_queries // config.queries_per_prompt(backbone))
            prompts *= 1 if config.share == "image" else config.rounds
        views = prompts
        if config.views == "image":
            views = 1 if config.share == "image" else config.rounds
        start = config.init_crops if config.init == "features" else 0
        passes = views * start * each.early
        if config.trunk == "prompt":
            passes += prompts * config.steps * (ahead + each.backward)
        else:
            passes += views * config.steps * each.early
        drawn = views * max(start, config.steps) if config.bank_size else views * (start + config.steps)
        bank = _positions(side, config.crop, config.bank_size) if config.bank_size else drawn
        total += passes + min(bank, drawn) * each.encode
    return total


def transfer_flops(
    backbone: Backbone, each: Pieces, fit: FitConfig, config: TransferConfig, points_of_pairs: Iterable[int]
) -> float:
    """FLOPs of reading all pairs.

    Args:
        backbone: the model.
        each: its pieces.
        fit: how the prompts were fitted.
        config: how to read.
        points_of_pairs: of each pair the number of keypoints.
    """
    side = config.side or backbone.image_size
    ahead = each.early if config.stop_early else each.whole
    total = 0.0
    for num_points in points_of_pairs:
        prompts = num_points * fit.rounds
        if config.crops == "grid":
            if fit.share != "none":
                prompts = -(-num_points // fit.queries_per_prompt(backbone))
                prompts *= 1 if fit.share == "image" else fit.rounds
            seen = config.num_crops * config.num_noises
            passes = seen * (1 if config.trunk == "null" else prompts) * ahead
            encodes = float(isqrt(config.num_crops) ** 2)
        else:
            passes = prompts * config.num_crops * ahead
            corners = min(4, config.num_crops)  # all prompts see these
            asked = corners + prompts * (config.num_crops - corners)
            encodes = min(_positions(side, config.crop, config.bank_size), asked)
        total += passes + encodes * each.encode
    return total


def _positions(side: int, crop: float, bank_size: int) -> float:
    return len(bank_positions(side, crop_side(side, crop), bank_size or 1 << 62)) ** 2
