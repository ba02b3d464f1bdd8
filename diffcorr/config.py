"""From configuration to objects: the single place that instantiates, and the identity of a run.

Entry points read ``compose`` or ``entry_point`` -> ``prepare_run_folder`` -> ``instantiate``. What a
user can get wrong in a configuration ends as a one-line :class:`~diffcorr.errors.DiffcorrError`.
"""

from __future__ import annotations

import atexit
import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import logging
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import hydra
import torch
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, InstantiationException, MissingConfigException
from hydra.types import RunMode
from lightning.pytorch.loggers import CSVLogger, WandbLogger
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from diffcorr.errors import DiffcorrError, UnknownNameError
from diffcorr.processes import in_main_process
from diffcorr.stores.files import writable_folder, write_atomic


def _folder_name(text: str) -> str:
    """A text as the name of one folder: ``${folder_name:...}`` in configurations."""
    plain = text.replace(os.sep, "_")
    return plain if len(plain) <= 120 else f"{plain[:107]}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


OmegaConf.register_new_resolver("folder_name", _folder_name, replace=True)

# A notice that no user can act on: there is no need of torchvision here.
logging.getLogger("transformers.utils.import_utils").addFilter(
    lambda record: "requires torchvision" not in record.getMessage()
)

_PACKAGES = (
    "torch",
    "lightning",
    "diffusers",
    "transformers",
    "torchmetrics",
    "hydra-core",
    "omegaconf",
    "safetensors",
    "tokenizers",
    "numpy",
    "scipy",
    "pillow",
    "pyarrow",
)
_HYDRA_NOISE = ("full_key:", "object_type=", "provider=", "Config search path:", "See https://")
"""How the lines of a Hydra error begin that say nothing about the mistake."""


def config_folder() -> Path:
    """Where the YAML files are: ``configs`` of the checkout, or their copy inside the wheel."""
    package = Path(__file__).resolve().parent
    checkout = package.parent / "configs"
    return checkout if checkout.is_dir() else package / "configs"


def compose(config_name: str, overrides: Sequence[str] = ()) -> DictConfig:
    """The configuration that the command line ``<config_name>.py <overrides>`` would run with.

    Args:
        config_name: file in the config folder without suffix, such as ``"eval"``.
        overrides: in Hydra's grammar, such as ``["backbone=tiny", "seed=1"]``.

    Raises:
        DiffcorrError: an override names an unknown key or option, or cannot be parsed.
    """
    # An entry point that composes while Hydra runs it must not lose its own state.
    if GlobalHydra.instance().is_initialized():
        raise RuntimeError("compose() inside a Hydra run: pass the run's own configuration on instead")
    try:
        with hydra.initialize_config_dir(str(config_folder()), version_base="1.3"):
            return hydra.compose(config_name, overrides=list(overrides))
    except HydraException as error:
        raise _config_error(error) from error


def entry_point(config_name: str) -> Callable[[Callable[[DictConfig], object]], Callable[[], None]]:
    """Make a function of the configuration a Hydra command whose user errors are one line.

    A :class:`~diffcorr.errors.DiffcorrError`, an unknown option or a missing value ends the command
    with its message on stderr and exit status 1; anything else is a defect and keeps its traceback.
    In a sweep, each job's ``output_dir`` is a numbered folder of its own inside the configured one.
    """

    def decorate(task: Callable[[DictConfig], object]) -> Callable[[], None]:
        def job(config: DictConfig) -> object:
            run = HydraConfig.get()
            if run.mode == RunMode.MULTIRUN:
                config.output_dir = run.runtime.output_dir
            try:
                return task(config)
            finally:
                # the jobs of a sweep may share a process, but no run of W&B
                if (wandb := sys.modules.get("wandb")) is not None and wandb.run is not None:
                    wandb.finish()

        @functools.wraps(task)
        def main() -> None:
            # Hydra would print its own many-line report; with this it lets the exception through.
            os.environ["HYDRA_FULL_ERROR"] = "1"
            if not in_main_process():  # one process has a log file, and a folder named after its own start
                nowhere = tempfile.mkdtemp()
                atexit.register(shutil.rmtree, nowhere, ignore_errors=True)
                sys.argv += [
                    "hydra/job_logging=stdout",
                    f"hydra.run.dir='{nowhere}'",
                    f"hydra.sweep.dir='{nowhere}'",
                ]
            begun = False

            @functools.wraps(task)
            def observed(config: DictConfig) -> object:
                nonlocal begun
                begun = True
                return job(config)

            run = hydra.main(version_base="1.3", config_path=str(config_folder()), config_name=config_name)
            try:
                run(observed)()
            except DiffcorrError as error:
                sys.exit(f"error: {error}")
            except (HydraException, OmegaConfBaseException) as error:
                sys.exit(f"error: {_config_error(error)}")
            except OSError as error:
                if begun:
                    raise
                # All that Hydra itself does with files before the task is to make the run's folder.
                sys.exit(
                    f"error: expected an output folder that can be written, found {error}: choose another"
                )

        return main

    return decorate


def instantiate(config: Any, *args: Any, **kwargs: Any) -> Any:
    """Build the object that a config node with ``_target_`` describes (nodes below it included).

    Args:
        config: the node; ``None`` gives ``None``.
        args: positional arguments of the target.
        kwargs: arguments that override the node's.

    Raises:
        DiffcorrError: the target does not exist, refuses its arguments, or a value is missing. What
            the target itself raises otherwise passes unchanged.
    """
    try:
        return hydra.utils.instantiate(config, *args, **kwargs)
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, DiffcorrError) or not isinstance(
            cause, TypeError | ImportError | AttributeError | OmegaConfBaseException | None
        ):
            raise cause from error
        raise _config_error(error) from error
    except OmegaConfBaseException as error:
        raise _config_error(error) from error


def option_names(group: str) -> list[str]:
    """The options of a config group: its files without suffix, sorted."""
    return sorted(path.stem for path in (config_folder() / group).glob("*.yaml"))


def load_option(group: str, name: str, root: Mapping[str, object] | None = None) -> DictConfig:
    """One file of a config group with the files that it builds on, without any state of Hydra.

    Args:
        group: such as ``"method"``.
        name: of the file, without suffix.
        root: what its interpolations refer to.

    Raises:
        UnknownNameError: there is no such file; lists those there are.
    """
    if name not in (known := option_names(group)):
        raise UnknownNameError(group, name, known)
    node = OmegaConf.load(config_folder() / group / f"{name}.yaml")
    assert isinstance(node, DictConfig)
    merged: DictConfig | ListConfig = OmegaConf.create()
    for base in node.pop("defaults", []):
        if base != "_self_":  # always the last
            option, _, key = base.partition("@")  # as in Hydra: option@key puts it under that key
            part = load_option(group, option)
            merged = OmegaConf.merge(merged, {key: part} if key else part)
    found = OmegaConf.merge(merged, node)
    assert isinstance(found, DictConfig)
    found._set_parent(root if isinstance(root, DictConfig) else OmegaConf.create(dict(root or {})))
    return found


def config_hash(config: Any) -> str:
    """Twelve hexadecimal digits that identify a configuration by its values.

    Keys may come in any order, a tuple equals a list and 1.0 equals 1, so that a configuration read
    from YAML has the hash of the dataclass that it fills.

    Args:
        config: config node, dataclass instance, mapping, sequence or plain value.

    Raises:
        DiffcorrError: the configuration holds something that is no plain value.
    """
    text = json.dumps(_plain(config), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def run_metadata(seed: int | None = None) -> dict[str, Any]:
    """What a reader needs to repeat a run: versions, git state, seed, kind of machine.

    Host, user and folder names are left out on purpose: the result may be published.
    """
    versions = {name: importlib.metadata.version(name) for name in _PACKAGES}
    # Asked of the module, the version of a checkout is right even where an old wheel is installed.
    versions["diffcorr"] = sys.modules["diffcorr"].__version__
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return {
        "versions": versions,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "device": device,
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "git": _git_state(Path(__file__).resolve().parent.parent),
        "overrides": _overrides(),
        "seed": seed,
    }


def prepare_run_folder(
    path: str | os.PathLike[str], config: Any = None, seed: int | None = None, task: str | None = None
) -> Path:
    """Create the folder of a run, before any work starts, and leave its description there.

    Args:
        path: the folder; created where missing.
        config: written, resolved, as ``config.yaml``.
        seed: goes into ``run.json`` beside :func:`run_metadata`.
        task: where given, the files are ``config-<task>.yaml`` and ``run-<task>.json``, so that several
            tasks can share a folder; a further configuration of a task is numbered (``-2``, ``-3``).

    Returns:
        The folder.

    Raises:
        StoreError: the folder cannot be created or written.
        DiffcorrError: the configuration has a missing value.
    """
    folder = writable_folder(path)
    suffix = f"-{task}" if task else ""
    if config is not None:
        try:
            container = OmegaConf.create(config) if not OmegaConf.is_config(config) else config
            text = OmegaConf.to_yaml(container, resolve=True)
            OmegaConf.to_container(container, resolve=True, throw_on_missing=True)
        except OmegaConfBaseException as error:
            raise _config_error(error) from error
        number = 1
        while (file := folder / f"config{suffix}.yaml").exists() and file.read_text(encoding="utf-8") != text:
            number += 1
            suffix = (f"-{task}" if task else "") + f"-{number}"
        write_atomic(file, lambda to: to.write_text(text, encoding="utf-8"))
    metadata = json.dumps(run_metadata(seed), indent=2) + "\n"
    write_atomic(folder / f"run{suffix}.json", lambda to: to.write_text(metadata, encoding="utf-8"))
    return folder


def csv_logger(folder: str, name: str = "csv") -> CSVLogger:
    """Metrics as ``folder/name/version_*/metrics.csv``."""
    return CSVLogger(folder, name=name)


def wandb_logger(
    folder: str, project: str = "diffcorr", name: str | None = None, group: str | None = None
) -> WandbLogger:
    """Weights & Biases; offline unless ``WANDB_MODE=online`` is set or an agent of a sweep runs.

    The runs of a sweep by ``-m`` are a group, named as the sweep's folder, each named as its own folder.
    """
    mode = os.environ.setdefault("WANDB_MODE", "online" if "WANDB_SWEEP_ID" in os.environ else "offline")
    if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.MULTIRUN:
        group, name = group or Path(HydraConfig.get().sweep.dir).name, name or Path(folder).name
    offline = mode != "online"
    return WandbLogger(
        name=name, save_dir=folder, project=project, offline=offline, log_model=False, group=group
    )


def no_logger() -> Literal[False]:
    """What ``Trainer(logger=...)`` takes for none."""
    return False


def _plain(value: Any) -> Any:
    if isinstance(value, DictConfig | ListConfig):
        value = OmegaConf.to_container(value, resolve=True, throw_on_missing=True)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = {item.name: getattr(value, item.name) for item in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise DiffcorrError(f"expected plain values in a configuration, found {type(value).__name__}: {value!r}")


def _config_error(error: Exception) -> DiffcorrError:
    """The one line of a Hydra or OmegaConf error."""
    missing = error if isinstance(error, MissingConfigException) else error.__cause__
    if isinstance(missing, MissingConfigException) and missing.options is not None:
        group, _, name = (missing.missing_cfg_file or "").rpartition("/")
        return UnknownNameError(group, name, missing.options)
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    _, found, rest = str(error).partition("Missing mandatory value: ")
    if found:
        key = rest.split()[0]
        return DiffcorrError(f"expected a value of config key {key!r}, found none: set it with {key}=...")
    if isinstance(error, InstantiationException) and isinstance(error.__cause__, TypeError):
        told = str(error.__cause__)
    else:
        told = " ".join(line for line in lines if not line.startswith(_HYDRA_NOISE)).split(", set env var")[0]
    keys = [line.removeprefix("full_key:").strip() for line in lines if line.startswith("full_key:")]
    return DiffcorrError(f"{told} (config key {keys[-1]!r})" if keys and keys[-1] else told)


def _overrides() -> list[str] | None:
    """What the command line (or a sweep) changed; ``None`` where no Hydra command runs."""
    return list(HydraConfig.get().overrides.task) if HydraConfig.initialized() else None


def _git_state(checkout: Path) -> dict[str, Any] | None:
    """Commit and whether files differ from it; ``None`` for an installed package or without git."""
    if not (checkout / ".git").exists():
        return None
    try:
        ask = functools.partial(
            subprocess.run, cwd=checkout, capture_output=True, text=True, check=True, timeout=20
        )
        commit = ask(["git", "rev-parse", "HEAD"]).stdout.strip()
        changes = ask(["git", "status", "--porcelain"]).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit, "dirty": bool(changes)}
