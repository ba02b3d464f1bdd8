"""The processes of a run: launched by Lightning, they take work items from one counter until none is left.

Nothing is averaged between them and no collective is called while they work, so that none waits for
another before a stage is over. All they share is the key-value store of torch's process group (a thread of
the first process): a counter from which items are handed out, and small messages. What they make goes to
the stores of the run folder, each file written by one of them.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from subprocess import Popen, TimeoutExpired
from typing import Any, TypeVar

import torch.distributed
from lightning import Fabric
from lightning.fabric.plugins.environments import LightningEnvironment, TorchElasticEnvironment
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.fabric.utilities.rank_zero import rank_zero_only

from diffcorr.errors import DiffcorrError

log = logging.getLogger(__name__)
T = TypeVar("T")

TELL_EVERY = 30.0  # seconds between two lines on the progress of all
LONGEST_NAP = 0.25  # seconds between two looks at whether the others are done
PATIENCE = 600.0  # seconds that a process that failed waits for being ended


class Processes:
    """One process on its own: it gets all items, in their order.

    Attributes:
        rank: number of this process among all; 0 is the main one, which writes what is written once.
        size: how many there are.
        options: what a trainer of this process alone takes in the place of what is configured. It does not
            look for a scheduler's signals: what it would save for a restart is in the stores already.
        exit_status: of a process that was asked to stop.
    """

    rank = 0
    size = 1
    exit_status = 143

    def __init__(self) -> None:
        self.options: dict[str, Any] = {"plugins": [LightningEnvironment()]}

    @property
    def is_main(self) -> bool:
        """Whether this is the process that scores, draws and reports."""
        return self.rank == 0

    def share(self, costs: Sequence[float], what: str = "items") -> Iterable[int]:
        """Places of the items that this process is to do, each given to one process.

        Called by all processes in the same order with the same costs.

        Args:
            costs: estimated, of each item, in any unit.
            what: they are, for the lines on the progress.
        """
        return range(len(costs))

    def tell(self, make: Callable[[], T]) -> T:
        """What ``make`` gives in the main process, for all. Plain values (JSON)."""
        return make()

    def gather(self, value: bytes) -> list[bytes]:
        """The values of all processes in the order of their ranks, for all."""
        return [value]

    def wait(self) -> float:
        """Until all have come here; the seconds waited."""
        return 0.0

    def close(self, error: BaseException | None = None) -> None:
        """Leave: without an error the main process as the last, with one at once, and end the others."""


def in_main_process() -> bool:
    """Whether this process is the main one; before `launch` as far as its environment says."""
    return int(getattr(rank_zero_only, "rank", 0)) == 0


def launch(trainer: Mapping[str, Any], collectives: bool = False) -> Processes:
    """Start the processes that a trainer's configuration asks for, or join them.

    By Lightning's own launchers: this script is started again for every further device, unless torchrun or
    SLURM have started it already. A further run of the same program, such as the next job of a sweep, goes on
    with the processes that are there.

    Args:
        trainer: ``accelerator``, ``devices``, ``num_nodes`` and ``strategy`` (a name) of a trainer.
        collectives: keep torch's process group, for a training that averages gradients. Without it nothing,
            such as a metric of torchmetrics, can wait for processes that are at something else.

    Raises:
        DiffcorrError: the strategy is one that splits a model, devices do not exist, or the processes that
            torchrun or SLURM have started are not those of the configuration.
    """
    keys = ("accelerator", "devices", "num_nodes", "strategy")
    chosen = {key: trainer[key] for key in keys if key in trainer}
    alone = chosen.get("devices", 1) in (1, "1") and chosen.get("num_nodes", 1) == 1
    started = _started()
    if alone and "strategy" not in chosen:
        if started > 1:
            raise DiffcorrError(
                f"expected trainer=ddp where {started} processes are started, found a run of one device: "
                f"add trainer=ddp trainer.devices=(processes on a machine)"
            )
        return Processes()
    if not str(chosen.get("strategy", "auto")).startswith(("auto", "ddp")):
        raise DiffcorrError(
            f"expected trainer.strategy ddp (a whole model on every device), found {chosen['strategy']!r}"
        )
    if not isinstance(devices := chosen.get("devices", 1), int | str):
        chosen["devices"] = list(devices)
    if Team.launched is None:
        if started == 1 and "SLURM_NTASKS" in os.environ:  # a job without srun: this script starts the others
            chosen["plugins"] = LightningEnvironment()
        with devices_that_exist():
            fabric = Fabric(**chosen)
        asked = int(getattr(fabric.strategy, "num_processes", 1)) * int(chosen.get("num_nodes", 1))
        if started not in (1, asked):
            raise DiffcorrError(
                f"expected trainer.devices x trainer.num_nodes processes, {asked}, found {started} started"
            )
        fabric.launch()
        if fabric.world_size == 1:
            return Processes()
        Team.launched = fabric, torch.distributed.distributed_c10d._get_default_store()
    team = Team(*Team.launched)
    if not collectives and torch.distributed.is_initialized():
        team.wait()  # a group is not connected before all have joined it
        torch.distributed.destroy_process_group()
    return team


@contextmanager
def devices_that_exist() -> Iterator[None]:
    """Lightning's objections to a trainer's devices as one line.

    Raises:
        DiffcorrError: Lightning cannot have what is asked for.
    """
    try:
        yield
    except (MisconfigurationException, RuntimeError, TypeError, ValueError) as error:
        message = " ".join(str(error).split())
        raise DiffcorrError(f"expected trainer options that fit this machine, found: {message}") from error


def _started() -> int:
    """How many processes of this run torchrun or srun have started; 1 where neither has."""
    if TorchElasticEnvironment.detect():
        return TorchElasticEnvironment().world_size()
    # SLURM_NTASKS alone is what a job may start; within a step it has been started
    return int(os.environ.get("SLURM_STEP_NUM_TASKS", 1)) if "SLURM_STEP_ID" in os.environ else 1


class Team(Processes):
    """One of several processes.

    Args:
        fabric: launched.
        store: of its process group, which need not exist any more.
    """

    launched: tuple[Fabric, torch.distributed.Store] | None = None
    _number = 0  # runs of this program so far

    def __init__(self, fabric: Fabric, store: torch.distributed.Store) -> None:
        Team._number += 1
        self.rank, self.size = fabric.global_rank, fabric.world_size
        index = fabric.device.index
        # a trainer of its own, which does not know of the others: no batch waits for them
        self.options = {
            "strategy": "auto",
            "num_nodes": 1,
            "devices": 1 if index is None else [index],
            "plugins": [LightningEnvironment()],
        }
        self._launched: list[Popen[bytes]] = getattr(fabric.strategy.launcher, "procs", [])
        environment = getattr(fabric.strategy, "cluster_environment", None)
        self._is_child = isinstance(environment, LightningEnvironment) and fabric.local_rank > 0
        if self._is_child:
            self.exit_status = 0  # Lightning kills all where a child's is another
            if Team._number == 1:
                threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
        self._store = torch.distributed.PrefixStore(f"diffcorr/{Team._number}", store)
        self._stages = 0

    def share(self, costs: Sequence[float], what: str = "items") -> Iterable[int]:
        """As the base; handed out as they are asked for, see `guided_chunks`."""
        return _HandOut(self, self._key("share"), costs, what)

    def tell(self, make: Callable[[], T]) -> T:
        """As the base."""
        key = self._key("tell")
        if self.is_main:
            value = make()
            self._ask(self._store.set, key, json.dumps(value))
            return value
        found: T = json.loads(self._await(key))
        return found

    def gather(self, value: bytes) -> list[bytes]:
        """As the base."""
        key = self._key("gather")
        self._ask(self._store.set, f"{key}/{self.rank}", base64.b64encode(value).decode())
        return [base64.b64decode(self._await(f"{key}/{rank}")) for rank in range(self.size)]

    def wait(self) -> float:
        """As the base."""
        key, start, nap = self._key("wait"), time.monotonic(), 0.005
        arrived = self.add(key, 1)
        while arrived < self.size:
            time.sleep(nap)
            nap = min(2 * nap, LONGEST_NAP)
            arrived = self.add(key, 0)
        return time.monotonic() - start

    def add(self, key: str, count: int) -> int:
        """Add to a counter that all share; what it then is.

        Raises:
            DiffcorrError: another process has stopped.
        """
        if self._ask(self._store.check, ["failed"]):
            raise DiffcorrError(self._ask(self._store.get, "failed").decode())
        return int(self._ask(self._store.add, key, count))

    def close(self, error: BaseException | None = None) -> None:
        """As the base; the others learn of an error when they next ask for work or wait."""
        if error is None:
            key = self._key("close")
            left = self.add(key, 1)
            while self.is_main and left < self.size:  # the store of all is gone with the main process
                time.sleep(0.01)
                left = self.add(key, 0)
            return
        try:
            told = f"process {self.rank} of {self.size}: {error or type(error).__name__}"
            self._store.compare_set("failed", "", str(error) if str(error).startswith("process ") else told)
        except RuntimeError:  # the main process is gone, and the store with it
            return
        if self._is_child and isinstance(error, Exception):
            # to be ended by the process that launched it, which says why; Lightning would kill all at once
            time.sleep(PATIENCE)
        for process in self._launched:
            process.terminate()
        for process in self._launched:
            try:
                process.wait(timeout=10)
            except TimeoutExpired:
                process.kill()

    def _key(self, kind: str) -> str:
        self._stages += 1
        return f"{self._stages}/{kind}"

    def _await(self, key: str) -> bytes:
        nap = 0.001
        while not self._ask(self._store.check, [key]):
            self.add("looks", 0)
            time.sleep(nap)
            nap = min(2 * nap, LONGEST_NAP)
        return bytes(self._ask(self._store.get, key))

    def _ask(self, question: Callable[..., Any], *args: Any) -> Any:
        try:
            return question(*args)
        except RuntimeError as error:
            raise DiffcorrError(
                "expected the main process, found it gone: start the same command again, it goes on"
            ) from error


class _HandOut(Iterable[int]):
    """The items of one process; without a length, because nobody knows it."""

    def __init__(self, team: Team, key: str, costs: Sequence[float], what: str) -> None:
        self.team, self.key, self.what = team, key, what
        self.chunks = guided_chunks(costs, team.size)
        self.costs = [sum(costs[place] for place in chunk) for chunk in self.chunks]

    def __iter__(self) -> Iterator[int]:
        start = told = time.monotonic()
        while (number := self.team.add(self.key, 1) - 1) < len(self.chunks):
            now = time.monotonic()
            if self.team.is_main and number and now - told > TELL_EVERY:
                done, total = sum(self.costs[:number]), sum(self.costs)
                left = (now - start) * (total - done) / done
                share = 100 * done / total
                log.info("%s: %.0f %% handed out to all processes, about %.0f s left", self.what, share, left)
                told = now
            yield from self.chunks[number]


def guided_chunks(costs: Sequence[float], size: int) -> list[range]:
    """Runs of neighbouring items, each of half of what an even share of the remaining cost would be.

    Neighbours share images, so that they are kept together as long as there is enough left to even out;
    the last items go one by one.

    Args:
        costs: estimated, of each item, at least 0.
        size: processes.
    """
    chunks, start, left = [], 0, float(sum(costs))
    while start < len(costs):
        goal, taken, stop = left / (2 * size), costs[start], start + 1
        while stop < len(costs) and taken + costs[stop] <= goal:
            taken += costs[stop]
            stop += 1
        chunks.append(range(start, stop))
        start, left = stop, left - taken
    return chunks


def _end_with_parent(parent: int) -> None:
    """End this process where the one that launched it is gone, so that no orphan waits for it."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
