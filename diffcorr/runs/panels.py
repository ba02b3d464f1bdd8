"""What Weights & Biases shows of a run beside its scores and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lightning.pytorch.loggers import Logger
from matplotlib.figure import Figure

from diffcorr.metrics import PointProtocol, match_points, pair_columns, pck_curve, score_matched
from diffcorr.metrics.scoring import FRESH
from diffcorr.reports import log_curve, log_table
from diffcorr.types import PairDataset, PointPrediction


def log_panels(
    loggers: Sequence[Logger],
    name: str,
    data: PairDataset,
    predictions: Sequence[PointPrediction],
    protocol: PointProtocol,
    drawn: Mapping[str, Sequence[Figure]],
) -> None:
    """PCK over alpha as a curve, and a table of the pairs that were drawn, with their scores.

    Args:
        loggers: a trainer's loggers.
        name: of the method.
        data: the pairs.
        predictions: of all of them.
        protocol: of the scores.
        drawn: figures of pairs by their id: matches and, of the first of them, a heatmap.
    """
    matched = match_points(pair_columns(data.pairs), predictions, FRESH)
    curve = [(point.alpha, point.value) for point in pck_curve(matched, protocol)]
    log_curve(loggers, f"{name}/PCK over alpha", curve, "alpha", f"PCK in %, {protocol.name}")
    metric = score_matched(matched, protocol)
    names = [f"{metric_name} ({protocol.name})" for metric_name in metric.names()]
    places, shares = metric.per_pair()
    most = max(map(len, drawn.values()), default=0)
    rows = []
    for place, scores in zip(places.tolist(), (100 * shares).tolist(), strict=True):
        pair = data.pairs[place]
        if figures := drawn.get(pair.pair_id):
            padded = [*figures, *[None] * (most - len(figures))]
            rows.append([pair.pair_id, pair.category, len(pair.keypoints), *scores, *padded])
    pictures = ["matches", "heatmap"][:most]
    log_table(loggers, f"{name}/pairs", ["pair", "category", "keypoints", *names, *pictures], rows)
