"""Any correspondence method on Lightning's trainer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from lightning import LightningModule
from torch.utils.data import DataLoader

from diffcorr.correspondence.base import CorrespondenceMethod
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
    """

    def __init__(
        self,
        method: CorrespondenceMethod,
        pairs: Sequence[Pair],
        images: Mapping[str, UInt8Image],
        keep: Callable[[list[PointPrediction]], None],
    ) -> None:
        super().__init__()
        self.method, self.pairs, self.images, self.keep = method, pairs, images, keep

    def predict_dataloader(self) -> DataLoader[int]:
        """The places of the pairs, in their order."""
        return DataLoader(range(len(self.pairs)), batch_size=None)  # type: ignore[arg-type]

    def predict_step(self, batch: int, batch_idx: int = 0) -> None:
        """Predict each keypoint of one pair."""
        pair = self.pairs[int(batch)]
        self.keep(self.method.predict(pair, self.images[pair.source_id], self.images[pair.target_id]))
