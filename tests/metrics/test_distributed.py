"""Two gloo processes give what one gives."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from diffcorr.metrics import MASK_PROTOCOLS, PCK, POINT_PROTOCOLS, SegmentationScore, pair_columns
from tests.helpers import protocol_reference


def update(rank: int, world: int, num_items: int = 5) -> dict[str, torch.Tensor]:
    """Scores of items shared out in turns; the last rank repeats item 0 as padding."""
    generator = torch.Generator().manual_seed(0)
    pck = PCK()
    masks = {name: SegmentationScore(3, name, background=1) for name in MASK_PROTOCOLS}
    for index in range(num_items):
        pred, target = torch.rand(2, 4, 2, generator=generator) * 10
        # the last image has ids that no other has, so that processes know of different numbers of them
        mask, label = torch.randint(0, 3, (2, 8, 8), generator=generator)
        mask = mask + 4 * (index == num_items - 1)
        if index % world == rank or (rank == world - 1 and index == 0):
            pck.update(pred, target, 30.0, index)
            for metric in masks.values():
                metric.update(mask, label, index)
    scores = {f"{n}/{key}": value for n, m in masks.items() for key, value in m.compute().items()}
    return {**pck.compute(), **scores}


def update_in_batches(rank: int, world: int) -> dict[str, torch.Tensor]:
    """Every preset on 31 pairs, each rank a batch of its own; both have pairs 10 to 14."""
    pairs, predictions = protocol_reference.random_pairs(31)
    place = {pair.pair_id: number for number, pair in enumerate(pairs)}
    shares = [list(range(31))] if world == 1 else [list(range(15)), list(range(10, 31))]
    values = {}
    for name in POINT_PROTOCOLS:
        columns = pair_columns(pairs)
        metric = PCK(name)
        mine = shares[rank]
        owners = torch.tensor([p for p in columns.owner.tolist() if p in mine])
        found = {(place[p.pair_id], p.keypoint): (p.x, p.y) for p in predictions}
        metric.update(
            torch.tensor([found[n, k] for n in mine for k in pairs[n].keypoints], dtype=torch.float64),
            torch.from_numpy(columns.target[[p in mine for p in columns.owner]]),
            torch.from_numpy(metric.protocol.threshold_lengths(columns)[mine]),
            torch.tensor(mine),
            torch.from_numpy(columns.category[mine]),
            torch.from_numpy(metric.protocol.scales(columns)[mine]),
            torch.bincount(owners, minlength=31)[mine],
        )
        values |= {f"{name}/{key}": value for key, value in metric.compute().items()}
    return values


def worker(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/sync", rank=rank, world_size=2)
    torch.save(update(rank, 2), f"{folder}/{rank}.pt")
    torch.save(update_in_batches(rank, 2), f"{folder}/batches{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.skipif(not dist.is_available(), reason="torch is built without distributed")
def test_two_processes_equal_one(tmp_path: Path):
    mp.spawn(worker, args=(str(tmp_path),), nprocs=2)
    expected = update(0, 1)
    for rank in (0, 1):
        assert torch.load(tmp_path / f"{rank}.pt", weights_only=True) == expected
    expected = update_in_batches(0, 1)
    assert len(expected) == sum(len(protocol.alphas) for protocol in POINT_PROTOCOLS.values())
    for rank in (0, 1):
        assert torch.load(tmp_path / f"batches{rank}.pt", weights_only=True) == expected
