"""Two gloo processes give what one gives."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from diffcorr.metrics import PCK, SegmentationScore


def update(rank: int, world: int, num_items: int = 5) -> dict[str, torch.Tensor]:
    """Scores of items shared out in turns; the last rank repeats item 0 as padding."""
    generator = torch.Generator().manual_seed(0)
    pck, masks = PCK(), SegmentationScore(3)
    for index in range(num_items):
        pred, target = torch.rand(2, 4, 2, generator=generator) * 10
        mask, label = torch.randint(0, 3, (2, 8, 8), generator=generator)
        if index % world == rank or (rank == world - 1 and index == 0):
            pck.update(pred, target, 30.0, index)
            masks.update(mask, label, index)
    return {**pck.compute(), **masks.compute()}


def worker(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/sync", rank=rank, world_size=2)
    torch.save(update(rank, 2), f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_available(), reason="torch is built without distributed")
def test_two_processes_equal_one(tmp_path: Path):
    mp.spawn(worker, args=(str(tmp_path),), nprocs=2)
    expected = update(0, 1)
    for rank in (0, 1):
        assert torch.load(tmp_path / f"{rank}.pt", weights_only=True) == expected
