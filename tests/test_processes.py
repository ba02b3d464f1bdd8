"""How work is cut for hand-out."""

import pytest
import torch
from lightning import Trainer

from diffcorr.errors import DiffcorrError
from diffcorr.processes import Processes, guided_chunks, launch


@pytest.mark.parametrize("size", [2, 3, 8])
@pytest.mark.parametrize("costs", [[1.0] * 100, [float(n % 7) for n in range(50)], [0.0] * 5, [3.0], []])
def test_chunks_are_neighbours_and_cover_everything_once(costs, size):
    chunks = guided_chunks(costs, size)
    assert [place for chunk in chunks for place in chunk] == list(range(len(costs)))
    left = sum(costs)
    for chunk in chunks:
        cost = sum(costs[place] for place in chunk)
        assert len(chunk) == 1 or cost <= left / (2 * size) + 1e-9
        left -= cost


def test_chunks_by_hand():
    # 16 items, 2 processes: a quarter of what is left each time
    assert [len(chunk) for chunk in guided_chunks([1.0] * 16, 2)] == [4, 3, 2, 1, 1, 1, 1, 1, 1, 1]


def test_one_process_gets_everything_in_order():
    alone = launch({"accelerator": "cpu", "devices": 1})
    assert type(alone) is Processes
    assert list(alone.share([5.0, 1.0, 3.0])) == [0, 1, 2]
    assert (alone.is_main, alone.size, alone.wait(), alone.gather(b"x")) == (True, 1, 0.0, [b"x"])
    assert alone.tell(lambda: [1]) == [1]


def test_a_strategy_that_splits_the_model_is_refused():
    with pytest.raises(DiffcorrError, match=r"expected trainer.strategy ddp .* found 'fsdp'"):
        launch({"accelerator": "cpu", "devices": 2, "strategy": "fsdp"})


TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "a",
    "RANK": "0",
    "LOCAL_RANK": "0",
    "WORLD_SIZE": "2",
    "LOCAL_WORLD_SIZE": "2",
    "GROUP_RANK": "0",
}
SRUN = {
    "SLURM_JOB_NAME": "eval",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_NTASKS": "2",
    "SLURM_NTASKS_PER_NODE": "2",
    "SLURM_NODEID": "0",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
}


@pytest.mark.parametrize("started", [TORCHRUN, SRUN])
def test_processes_that_would_all_do_the_same_are_refused(monkeypatch, started):
    for key, value in started.items():
        monkeypatch.setenv(key, value)
    with pytest.raises(DiffcorrError, match=r"expected trainer=ddp where 2 processes .* one device"):
        launch({"accelerator": "cpu", "devices": 1})


@pytest.mark.parametrize("started", [TORCHRUN, SRUN])
def test_processes_that_are_not_those_of_the_configuration_are_refused(monkeypatch, started):
    for key, value in started.items():
        monkeypatch.setenv(key, value)
    with pytest.raises(DiffcorrError, match=r"expected .* processes, 3, found 2 started"):
        launch({"accelerator": "cpu", "devices": 3, "strategy": "ddp"})


def test_a_job_without_srun_is_one_process(monkeypatch):
    """SLURM_NTASKS says what a job may start; Lightning takes it for what has been started."""
    monkeypatch.setenv("SLURM_NTASKS", "2")
    monkeypatch.setenv("SLURM_JOB_NAME", "eval")
    alone = launch({"accelerator": "cpu", "devices": 1})
    assert type(alone) is Processes
    with pytest.raises(RuntimeError, match="ntasks"):
        Trainer(accelerator="cpu", devices=1)
    Trainer(accelerator="cpu", devices=1, **alone.options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
def test_devices_that_do_not_exist_are_one_line():
    with pytest.raises(DiffcorrError, match=r"expected trainer options that fit .*CUDA") as found:
        launch({"accelerator": "cuda", "devices": 2, "strategy": "ddp"})
    assert "\n" not in str(found.value)
