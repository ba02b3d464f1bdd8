"""Batches for pretraining, straight from memory-mapped arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler


class ArrayBatches(Dataset):
    """Rows of equally long arrays; a list of indices gives one batch, without collation."""

    def __init__(self, arrays: Mapping[str, Any]) -> None:
        self.arrays = dict(arrays)

    def __len__(self) -> int:
        return len(next(iter(self.arrays.values())))

    def __getitems__(self, indices: list[int]) -> dict[str, Tensor]:
        rows = sorted(indices)  # in file order: memory-mapped pages are read once
        return {k: torch.as_tensor(a[rows]) for k, a in self.arrays.items()}

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {k: v[0] for k, v in self.__getitems__([index]).items()}


def shuffled(arrays: Mapping[str, Any], batch_size: int, num_steps: int, seed: int) -> DataLoader:
    """A loader of exactly ``num_steps`` shuffled batches, the same ones for the same seed."""
    data = ArrayBatches(arrays)
    order = torch.Generator().manual_seed(seed)
    sampler = RandomSampler(data, num_samples=batch_size * num_steps, generator=order)
    return DataLoader(data, batch_size, sampler=sampler, collate_fn=lambda batch: batch, num_workers=0)
