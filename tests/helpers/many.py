"""Runs of the entry points in several processes, as torchrun starts them."""

from __future__ import annotations

import multiprocessing
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from lightning.fabric.utilities.rank_zero import rank_zero_only

from diffcorr.config import compose
from diffcorr.runs.evaluate import evaluate
from diffcorr.runs.train import fit

WORK = {"eval": evaluate, "train": fit}

CONTEXT = multiprocessing.get_context("forkserver")  # imports once, and no thread of pytest's is copied
CONTEXT.set_forkserver_preload(["tests.helpers.many"])


def start(entry: str, overrides: Sequence[str], log: Path, rank: int = 0, size: int = 1, port: int = 0):
    """One process of a run; its output goes to a file."""
    process = CONTEXT.Process(target=_work, args=(entry, list(overrides), str(log), rank, size, port))
    process.start()
    return process


def together(
    entry: str, overrides: Sequence[str], folder: Path, size: int, timeout: float = 300
) -> list[int]:
    """Run an entry point in ``size`` processes; their exit statuses."""
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    if size > 1:
        overrides = [*overrides, "trainer=ddp", "trainer.accelerator=cpu", f"trainer.devices={size}"]
    started = [start(entry, overrides, folder / f"log{rank}.txt", rank, size, port) for rank in range(size)]
    for process in started:
        process.join(timeout)
        if process.is_alive():
            process.kill()
            process.join()
    return [process.exitcode for process in started]


def _work(entry: str, overrides: list[str], log: str, rank: int, size: int, port: int) -> None:
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    torch.set_num_threads(1)
    if size > 1:
        about = {
            "RANK": rank,
            "LOCAL_RANK": rank,
            "WORLD_SIZE": size,
            "LOCAL_WORLD_SIZE": size,
            "GROUP_RANK": 0,
        }
        os.environ |= {key: str(value) for key, value in about.items()}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "test"}
    rank_zero_only.rank = rank  # as it is where the environment is set before the import
    try:
        WORK[entry](compose(entry, overrides))
    except ValueError as error:  # as the entry points do
        sys.exit(f"error: {error}")
