"""Any correspondence method on Lightning's trainer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from lightning import LightningModule

from diffcorr.correspondence.base import CorrespondenceMethod
from diffcorr.errors import DataError, DivergedError, ImageError
from diffcorr.processes import Processes
from diffcorr.types import Pair, PointPrediction, UInt8Image


class PairPredictionModule(LightningModule):
    """Predicts pairs one by one: ``trainer.predict(module)``.

    A batch is the place of a pair in ``pairs``, and predictions leave through ``keep``, because the trainer
    copies batches and outputs, which our frozen records refuse. They are scored afterwards
    (`diffcorr.metrics.score_points`), so that no sampler that repeats pairs can enter a score.

    Args:
        method: finds the points.
        pairs: what to predict.
        images: RGB images by id; may load on access.
        keep: receives the predictions of each pair as they come, such as a store's ``add``.
        processes: this one among others, each with a trainer of its own; None = as the trainer says.
        failed: told the id of a pair that cannot be predicted (an image that cannot be read, a point outside
            of it) and why, the others are predicted; None raises.
    """

    def __init__(
        self,
        method: CorrespondenceMethod,
        pairs: Sequence[Pair],
        images: Mapping[str, UInt8Image],
        keep: Callable[[list[PointPrediction]], None],
        processes: Processes | None = None,
        failed: Callable[[str, Exception], None] | None = None,
    ) -> None:
        super().__init__()
        self.processes, self.failed = processes, failed
        self.method, self.pairs, self.images, self.keep = method, pairs, images, keep

    def predict_dataloader(self) -> Iterable[int]:
        """The places of this process's pairs; no ``DataLoader``, whose sampler might repeat some."""
        if self.processes is not None:
            costs = [len(pair.keypoints) for pair in self.pairs]
            return self.processes.share(costs, f"{self.method.name}, pairs")
        return range(self.trainer.global_rank, len(self.pairs), self.trainer.world_size)

    def predict_step(self, batch: int, batch_idx: int = 0) -> None:
        """Predict each keypoint of one pair."""
        pair = self.pairs[int(batch)]
        try:
            found = self.method.predict(pair, self.images[pair.source_id], self.images[pair.target_id])
        except (ImageError, DataError, DivergedError) as error:
            if self.failed is None:
                raise
            self.failed(pair.pair_id, error)
        else:
            self.keep(found)
