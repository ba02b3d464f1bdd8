"""FLOPs per query of a true architecture, counted without running it: ``python -m benchmarks.count_flops``.

The pieces (``diffcorr.correspondence.flops``) are multiplied by how often the preset or the published
program runs them. Overrides as in ``benchmarks.run``; by default Stable Diffusion 1.5, the paper's preset.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from benchmarks.modes import MODES, changed
from diffcorr.config import compose, instantiate
from diffcorr.correspondence import FitConfig, TransferConfig
from diffcorr.correspondence.crops import bank_positions, crop_side
from diffcorr.correspondence.flops import Pieces, count_pieces

DEFAULT = ["backbone=sd15", "backbone.weights=random", "method=prompt_fit_paper"]
QUERIES_PER_IMAGE = 10


def per_query(each: Pieces, fit: FitConfig, read: TransferConfig, side: int) -> dict[str, Any]:
    """FLOPs per query of the plain process and of the exact engine, at ten queries an image."""
    steps, crops = fit.rounds * fit.steps, fit.rounds * read.num_crops
    plain = steps * (each.whole + each.backward + each.encode) + crops * (each.whole + each.encode)

    def bank(size: int, asked: float) -> float:
        positions = len(bank_positions(side, crop_side(side, fit.crop), size)) ** 2
        return min(positions, asked * QUERIES_PER_IMAGE) / QUERIES_PER_IMAGE

    encodes = bank(fit.bank_size, steps) + bank(read.bank_size or 1 << 62, crops)
    exact = steps * (each.early + each.backward) + crops * each.early + encodes * each.encode
    return {"plain": plain, "exact": exact, "flops_ratio": exact / plain, "encodes_per_query": encodes}


def per_query_packed(each: Pieces, fit: FitConfig, read: TransferConfig) -> float:
    """FLOPs per query of the preset `packed`: one pass of a view serves all queries of an image.

    The model's passes alone: the equations that are solved for the token are well below a pass.
    """
    views = fit.rounds * (fit.init_crops + fit.steps)
    readings, encodes = read.num_crops * read.num_noises, views + read.num_crops
    return ((views + readings) * each.early + encodes * each.encode) / QUERIES_PER_IMAGE


def main(arguments: list[str]) -> None:
    """Count what the command line asks for."""
    config = compose("eval", [*DEFAULT, *arguments])
    method = instantiate(config.method)
    fit, read = method.keywords["fit"], method.keywords["transfer"]
    backbone = instantiate(config.backbone)
    each = count_pieces(backbone, fit.layers, fit.token, fit.timestep)
    record = {"backbone": backbone.name, "arguments": arguments, "queries_per_image": QUERIES_PER_IMAGE}
    record |= {"bank_size": fit.bank_size, "transfer_bank_size": read.bank_size}
    record |= {"tflop_each": {k: round(v / 1e12, 4) for k, v in each._asdict().items()}}
    record |= per_query(each, fit, read, fit.side or backbone.image_size)
    packed = instantiate(changed(config.method, MODES["packed"])).keywords
    record["packed"] = per_query_packed(each, packed["fit"], packed["transfer"])
    record["flops_ratio_packed"] = record["packed"] / record["plain"]
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main(sys.argv[1:])
