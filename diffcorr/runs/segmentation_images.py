"""The images of a segmentation run: which can be read, and in which batches they go."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from diffcorr.errors import DataError, ImageError
from diffcorr.runs.common import Run
from diffcorr.types import SegmentationDataset, SegmentationSample


@dataclass(frozen=True)
class ImageIndex:
    """What a run needs to know of every image that can be read, gathered in one pass over the data set.

    Attributes:
        places: of the images in the data set.
        image_ids: of each.
        styles: rendering style of each, empty where it has none.
        num_classes: classes in the label of each, at least 1.
    """

    places: list[int]
    image_ids: list[str]
    styles: list[str]
    num_classes: list[int]

    @classmethod
    def of(cls, data: SegmentationDataset, run: Run) -> ImageIndex:
        """Read every image once, each in one of the processes of the run."""
        rows: list[tuple[int, str, str, int]] = []
        with run.stage("read", data.name, "images", len(data), len(data)):
            for place in range(run.processes.rank, len(data), run.processes.size):
                try:
                    sample = data[place]
                except (ImageError, DataError) as error:
                    run.failed(f"image {place}", error)
                    continue
                style = str(sample["tags"].get("style", ""))
                classes = np.unique(sample["label"])
                rows.append((place, sample["image_id"], style, max(1, int((classes >= 0).sum()))))
            told = run.processes.gather(json.dumps(rows).encode())
        everyone = sorted(tuple(row) for part in told for row in json.loads(part))
        if not everyone:
            raise DataError(f"expected images in {data.name} ({data.split}), found none that can be read")
        return cls(*map(list, zip(*everyone, strict=True)))


class SomeImages:
    """A data set with some of its images alone, and everything else that it says of itself."""

    def __init__(self, data: SegmentationDataset, places: Sequence[int]) -> None:
        self._data, self._places = data, places

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> SegmentationSample:
        return self._data[self._places[index]]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._data, name)


class ImageBatches:
    """The batches of one process, read when it is their turn.

    Batches are composed before they are shared out and before it is known what is stored, so that
    every image is segmented beside the same others whoever does it, and after an interruption.

    Args:
        data: all images.
        batches: places of the images of each.
        order: numbers of the batches of this process; without a length where they are handed out.
        failed: told of images that cannot be read, which are left out.
    """

    def __init__(
        self,
        data: SegmentationDataset,
        batches: Sequence[Sequence[int]],
        order: Iterable[int],
        failed: Callable[[str, Exception], None],
    ) -> None:
        self.data, self.batches, self.order, self.failed = data, batches, order, failed

    def __len__(self) -> int:
        return len(self.order)  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[list[SegmentationSample]]:
        for number in self.order:
            samples = []
            for place in self.batches[number]:
                try:
                    samples.append(self.data[place])
                except (ImageError, DataError) as error:
                    self.failed(f"image {place} of {self.data.name}", error)
            if samples:
                yield samples
