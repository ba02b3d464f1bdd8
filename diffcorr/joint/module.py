"""Any label carrier on Lightning's trainer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from lightning import LightningModule

from diffcorr.data.labels import LabelMap
from diffcorr.errors import DataError, ImageError
from diffcorr.joint.carry import LabelCarrier
from diffcorr.processes import Processes
from diffcorr.types import LabelledPairs, Pair


class CarryModule(LightningModule):
    """Carries the label map of each pair's source to its target: ``trainer.predict(module)``.

    Args:
        carrier: how.
        data: images and label maps.
        pairs: which of its pairs.
        keep: receives pair id and label map of each target as they come.
        processes: this one among others, each with a trainer of its own; None = as the trainer says.
        failed: told the id of a pair whose label map cannot be carried (an image or a label map that cannot
            be read) and why, the others go on; None raises.
    """

    def __init__(
        self,
        carrier: LabelCarrier,
        data: LabelledPairs,
        pairs: Sequence[Pair],
        keep: Callable[[str, LabelMap], None],
        processes: Processes | None = None,
        failed: Callable[[str, Exception], None] | None = None,
    ) -> None:
        super().__init__()
        self.processes, self.failed = processes, failed
        self.carrier, self.data, self.pairs, self.keep = carrier, data, pairs, keep

    def predict_dataloader(self) -> Iterable[int]:
        """The places of this process's pairs; no ``DataLoader``, whose sampler might repeat some."""
        if self.processes is not None:
            return self.processes.share([1.0] * len(self.pairs), f"{self.carrier.name}, pairs")
        return range(self.trainer.global_rank, len(self.pairs), self.trainer.world_size)

    def predict_step(self, batch: int, batch_idx: int = 0) -> None:
        """Carry one label map."""
        pair = self.pairs[int(batch)]
        try:
            label = self.carrier.carry(
                self.data.image(pair.source_id),
                self.data.label(pair.source_id),
                self.data.image(pair.target_id),
                f"{pair.dataset}/{pair.source_id}",
                f"{pair.dataset}/{pair.target_id}",
                pair.category,
            )
        except (ImageError, DataError) as error:
            if self.failed is None:
                raise
            self.failed(pair.pair_id, error)
        else:
            self.keep(pair.pair_id, label)
