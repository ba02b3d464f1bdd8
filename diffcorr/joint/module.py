"""Any label carrier on Lightning's trainer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lightning import LightningModule
from torch.utils.data import DataLoader

from diffcorr.data.labels import LabelMap
from diffcorr.joint.carry import LabelCarrier
from diffcorr.types import LabelledPairs, Pair


class CarryModule(LightningModule):
    """Carries the label map of each pair's source to its target: ``trainer.predict(module)``.

    Args:
        carrier: how.
        data: images and label maps.
        pairs: which of its pairs.
        keep: receives pair id and label map of each target as they come.
    """

    def __init__(
        self,
        carrier: LabelCarrier,
        data: LabelledPairs,
        pairs: Sequence[Pair],
        keep: Callable[[str, LabelMap], None],
    ) -> None:
        super().__init__()
        self.carrier, self.data, self.pairs, self.keep = carrier, data, pairs, keep

    def predict_dataloader(self) -> DataLoader[int]:
        """The places of the pairs, in their order."""
        return DataLoader(range(len(self.pairs)), batch_size=None)  # type: ignore[arg-type]

    def predict_step(self, batch: int, batch_idx: int = 0) -> None:
        """Carry one label map."""
        pair = self.pairs[int(batch)]
        label = self.carrier.carry(
            self.data.image(pair.source_id),
            self.data.label(pair.source_id),
            self.data.image(pair.target_id),
            f"{pair.dataset}/{pair.source_id}",
            f"{pair.dataset}/{pair.target_id}",
            pair.category,
        )
        self.keep(pair.pair_id, label)
