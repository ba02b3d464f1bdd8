"""What every run needs: its folder, its trainer, its options and its records."""

from __future__ import annotations

import json
import logging
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NoReturn, Protocol, Self, TypeVar

import lightning
from omegaconf import DictConfig, OmegaConf

from diffcorr.attention.base import AttentionVariant
from diffcorr.backbones.base import Backbone
from diffcorr.config import instantiate, load_option, prepare_run_folder, run_metadata
from diffcorr.errors import StoreError
from diffcorr.metrics import Interval
from diffcorr.processes import devices_that_exist, in_main_process, launch
from diffcorr.runs.summary import Stage, summary
from diffcorr.runs.timings import Timing, add_timing
from diffcorr.stores.files import write_atomic
from diffcorr.stores.latents import LatentStore
from diffcorr.stores.records import MetricRecord, read_records, write_records
from diffcorr.types import Pair, PairDataset, UInt8Image

log = logging.getLogger(__name__)
FAILURES = "failures.jsonl"


class _Named(Protocol):
    @property
    def name(self) -> str: ...


Named = TypeVar("Named", bound=_Named)
"""A method of any task."""


class Run(AbstractContextManager["Run"]):
    """One run folder and the objects that its configuration describes.

    Entered by every process of the run. The main one writes what is written once: configuration, records,
    figures, ``failures.jsonl`` and, at the end, ``summary-<task>.md``.

    Args:
        config: the whole configuration of an entry point; all processes take the main one's ``output_dir``.
        collectives: for a training whose gradients the processes average, see `diffcorr.processes.launch`.

    Raises:
        StoreError: the output folder cannot be written; raised before anything is loaded.
    """

    def __init__(self, config: DictConfig, collectives: bool = False) -> None:
        self.config = config
        self._start = time.monotonic()
        if in_main_process():  # before any other is launched
            prepare_run_folder(config.output_dir, config, config.seed, config.task)
        self.processes = launch(config.trainer, collectives)
        try:
            self._begin()
        except BaseException as error:
            self.processes.close(error)
            raise

    def _begin(self) -> None:
        config = self.config
        config.output_dir = self.processes.tell(lambda: str(config.output_dir))
        self.folder = Path(config.output_dir)
        self.figures = self.folder / "figures"
        self.stages: list[Stage] = []
        self._failures: list[dict[str, str]] = []  # of this process, of the present stage
        self._handlers: dict[int, Any] = {}
        if self.processes.is_main:
            _forget_failures(self.folder / FAILURES, config.task)
        else:
            logging.getLogger("diffcorr").setLevel(logging.WARNING)
        lightning.seed_everything(config.seed, verbose=False)
        self.loggers: Any = False
        if self.processes.is_main:
            self.loggers = instantiate(config.logger)
        if self.loggers:
            described = OmegaConf.to_container(config, resolve=True)
            self.loggers.log_hyperparams({"config": described, "run": run_metadata(config.seed)})
        # a run builds several trainers, each of which would say anew which devices there are
        logging.getLogger("lightning.pytorch.utilities.rank_zero").setLevel(logging.WARNING)
        warnings.filterwarnings("ignore", "predict returned None")
        warnings.filterwarnings("ignore", ".*LeafSpec.* is deprecated")
        warnings.filterwarnings("ignore", ".*does not have many workers")
        warnings.filterwarnings("ignore", "The `srun` command is available")  # not for one device

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._handlers[signal.SIGTERM] = signal.signal(signal.SIGTERM, self._stop)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if self.processes.is_main:
                told = str(exc) or exc_type.__name__ if exc_type else None
                with suppress(StoreError) if exc else nullcontext():  # a full disk has been told already
                    self._summarise("SIGTERM" if isinstance(exc, SystemExit) else told)
        finally:
            self.processes.close(exc)
            for number, handler in self._handlers.items():
                signal.signal(number, handler)

    def _stop(self, number: int, frame: FrameType | None) -> NoReturn:
        """On SIGTERM: unwind at once; what is done is stored already."""
        signal.signal(number, signal.SIG_IGN)
        if self.processes.is_main:
            log.warning("stopped by SIGTERM: what is done is kept, the same command goes on where it stopped")
        sys.exit(self.processes.exit_status)

    @contextmanager
    def stage(
        self, work: str, of: str, items: str, asked: int, todo: int, seed: int = 0, key: str | None = None
    ) -> Iterator[None]:
        """Work that the processes share; left when all of them are done with it.

        Args:
            work: what is done, such as ``fit``, ``predict`` or ``read``.
            of: the method, or the data set.
            items: what they are called.
            asked: how many items are wanted.
            todo: how many of them have still to be done.
            seed: of the method.
            key: identity of what is made; with it the stage adds itself to ``timings.json``.
        """
        name = f"{work} {of}, {items}" if key is None else f"{work} {of}, seed {seed}, {items}"
        stage = Stage(name, asked, asked - todo)
        self.stages.append(stage)
        start, cpu_start = time.monotonic(), time.process_time()
        try:
            yield
            waited = self.processes.wait()
            told = self.processes.gather(json.dumps([waited, self._failures]).encode())
            stage.idle, failures = zip(*map(json.loads, told), strict=True)
            stage.failed = sum(map(len, failures))
            stage.finished = True
        finally:
            stage.seconds = time.monotonic() - start
        self._failures = []
        if self.processes.is_main and stage.failed:
            with (self.folder / FAILURES).open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(failure) + "\n" for own in failures for failure in own)
        if self.processes.is_main and key is not None:
            cpu_seconds = round(time.process_time() - cpu_start, 3)
            row = Timing(work, of, seed, key, todo, asked, round(stage.seconds, 3), cpu_seconds)
            add_timing(self.folder, row)
        if self.processes.size > 1 and todo:
            log.info("%s: the processes waited %.1f s at most at the end", name, max(stage.idle))

    def failed(self, item: str, error: Exception) -> None:
        """Record that an item of the present stage cannot be done, or raise, as ``on_error`` says."""
        if self.config.get("on_error", "record") == "raise":
            raise error
        name = self.stages[-1].name
        log.warning("%s: %s is left out: %s", name, item, error)
        self._failures.append({"task": self.config.task, "stage": name, "item": item, "reason": str(error)})

    def _summarise(self, error: str | None) -> None:
        seconds = time.monotonic() - self._start
        name = self.config.get("data", {}).get("name")
        title = f"{self.config.task}" + (f" on {name}" if name else "")
        text = summary(title, self.folder, seconds, self.processes.size, self.stages, error)
        write_text(self.folder / f"summary-{self.config.task}.md", text)
        if self.stages:
            log.info("summary\n%s", text)

    def backbone(self) -> Backbone:
        """The frozen model, on the trainer's device, whatever is done with it there."""
        backbone: Backbone = instantiate(self.config.backbone)
        backbone.to(self.trainer().strategy.root_device)
        if root := self.config.get("latents_root"):
            model = f"{backbone.fingerprint}, {backbone.image_size}"
            backbone.latent_store = LatentStore(root, model, self.config.get("latents_gib", 4.0))
        return backbone

    def variant(self) -> AttentionVariant:
        """The attention variant."""
        variant: AttentionVariant = instantiate(self.config.attention)
        return variant

    def trainer(self, **kwargs: Any) -> lightning.Trainer:
        """A trainer of this process alone, with the run's logger: for work that the processes share out."""
        options = dict(self.processes.options)
        if not self.processes.is_main:
            options["enable_progress_bar"] = False
        return self.joint_trainer(**options, **kwargs)

    def joint_trainer(self, **kwargs: Any) -> lightning.Trainer:
        """A trainer of the configured kind: for a training whose gradients the processes average."""
        with devices_that_exist():
            trainer: lightning.Trainer = instantiate(self.config.trainer, logger=self.loggers, **kwargs)
        return trainer

    def log(self, values: Mapping[str, float]) -> None:
        """Send scores to the logger, where there is one."""
        if self.loggers:
            self.loggers.log_metrics(dict(values))

    def keep(self, records: Iterable[MetricRecord]) -> list[MetricRecord]:
        """Write records into ``metrics.json``, in the place of older ones of the same thing."""
        path = self.folder / "metrics.json"
        kept = {_key(r): r for r in (read_records(path) if path.exists() else [])}
        kept |= {_key(r): r for r in records}
        write_records(path, kept.values())
        return list(kept.values())

    def keep_comparisons(self, rows: Iterable[dict[str, Any]]) -> None:
        """Write differences into ``comparisons.json``, in the place of older ones of the same thing."""
        path = self.folder / "comparisons.json"
        old = json.loads(path.read_text()) if path.exists() else []
        about = ("task", "dataset", "protocol", "method", "against", "metric")
        kept = {tuple(row[k] for k in about): row for row in [*old, *rows]}
        write_text(path, "[\n" + ",\n".join(json.dumps(row) for row in kept.values()) + "\n]\n")


def comparison(
    protocol: str,
    task: str,
    dataset: str,
    method: str,
    against: str,
    metric: str,
    interval: Interval,
    num_seeds: int,
) -> dict[str, Any]:
    """One difference between two methods, in points of percent, with its 95 % interval."""
    return {
        "task": task,
        "method": method,
        "against": against,
        "dataset": dataset,
        "protocol": protocol,
        "metric": metric,
        "difference": round(interval.difference, 2),
        "interval95": [round(interval.low, 2), round(interval.high, 2)],
        "num_items": interval.num_items,
        "num_seeds": num_seeds,
    }


def _key(record: MetricRecord) -> tuple[object, ...]:
    fields = {k: v for k, v in record.to_dict().items() if k not in ("value", "num_items", "num_asked")}
    return tuple(sorted((k, str(v)) for k, v in fields.items()))


class ImagesById(Mapping[str, UInt8Image]):
    """The images of a data set, loaded when asked for."""

    def __init__(self, data: PairDataset) -> None:
        self.data = data
        self.ids = sorted({i for p in data.pairs for i in (p.source_id, p.target_id)})

    def __getitem__(self, image_id: str) -> UInt8Image:
        return self.data.image(image_id)

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids)

    def __len__(self) -> int:
        return len(self.ids)


class SomePairs:
    """A data set with some of its pairs alone.

    Args:
        data: all of it.
        pairs: those.
    """

    def __init__(self, data: PairDataset, pairs: Sequence[Pair]) -> None:
        self.name, self.split, self.pairs, self._data = data.name, data.split, pairs, data

    def image(self, image_id: str) -> UInt8Image:
        """The RGB image of that id."""
        return self._data.image(image_id)


def configured_methods(
    config: DictConfig, seed: int, build: Callable[[Any], Named]
) -> Iterator[tuple[DictConfig, Named]]:
    """The configured method and its baselines, each name once, with what configures it.

    Args:
        config: its ``seed`` is set to ``seed``, on which methods depend.
        seed: of this repetition.
        build: makes a method of what its configuration instantiates to.
    """
    config.seed = seed
    done: set[str] = set()
    for node in [config.method, *(load_option("method", name, config) for name in config.baselines)]:
        method = build(instantiate(node))
        if method.name in done:
            log.info("%s, seed %d: another of that name ran already, left out", method.name, seed)
            continue
        done.add(method.name)
        yield node, method


def seeds_of(config: DictConfig) -> list[int]:
    """The seeds that a run repeats itself for: ``seeds`` where given, else the one ``seed``."""
    return [int(s) for s in config.get("seeds") or [config.seed]]


def write_text(path: Path, text: str) -> None:
    """A small text file of the run folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, lambda to: to.write_text(text, encoding="utf-8"))


def _forget_failures(path: Path, task: str) -> None:
    """What failed in an earlier run of the task is tried again."""
    if path.exists():
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        write_text(path, "".join(line for line in lines if json.loads(line)["task"] != task))
