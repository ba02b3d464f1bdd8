"""Sweeps: what of a run the next one takes over, and the files that launch them."""

import copy
import dataclasses
import importlib.util
import json
import subprocess
import sys
from itertools import product
from pathlib import Path

import hydra
import pytest
import yaml
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig, OmegaConf
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

from diffcorr.config import compose, config_folder, config_hash, instantiate
from diffcorr.correspondence import PromptFit, TransferConfig, build_method
from diffcorr.runs.evaluate import evaluate
from tests.helpers.tiny_models import save_tiny_pipeline, tiny_backbone

REPOSITORY = config_folder().parent
EXPERIMENTS = sorted(path.stem for path in (config_folder() / "experiment").glob("ablate_*.yaml"))
SWEEPS = sorted((config_folder() / "sweeps").glob("*.yaml"))


def params(experiment: str) -> dict[str, list[object]]:
    """The swept values of an experiment."""
    node = yaml.safe_load((config_folder() / "experiment" / f"{experiment}.yaml").read_text())
    swept = node["hydra"]["sweeper"]["params"]
    return {key: yaml.safe_load(f"[{value}]") for key, value in swept.items()}


@pytest.fixture(scope="module")
def packed() -> DictConfig:
    return compose("eval", ["method=packed", "method.fit.layers=[3]"])


def fit_identity(config: DictConfig, key: str = "seed", value: object = 0) -> str:
    """What an embedding depends on, with one value changed."""
    changed = copy.deepcopy(config)
    OmegaConf.update(changed, key, value)
    method = build_method(instantiate(changed.method), tiny_backbone(), instantiate(changed.attention))
    assert isinstance(method, PromptFit)
    return config_hash(method.identity())


READING = {
    **{"layers": [5], "timestep": 40, "crops": "follow", "num_crops": 9, "num_noises": 2, "crop": 0.8},
    **{"trunk": "prompt", "readout": "softmax_mean", "noise": "uniform", "margin": 0.2, "bank_size": 9},
    **{"token": 2, "frame": "letterbox", "side": 64, "stop_early": False, "batch_size": 4, "seed": 5},
}


def test_every_value_of_a_reading_is_tried() -> None:
    assert set(READING) == {field.name for field in dataclasses.fields(TransferConfig)}


@pytest.mark.parametrize("name", READING)
def test_what_only_reading_depends_on_is_not_fitted_again(name: str, packed: DictConfig) -> None:
    # noises belong to grids
    start = copy.deepcopy(packed)
    start.method.transfer.num_noises = 1
    assert fit_identity(start, f"method.transfer.{name}", READING[name]) == fit_identity(packed)


@pytest.mark.parametrize(("name", "value"), [("rounds", 8), ("pack_size", 2), ("stop_early", False)])
def test_how_much_and_how_fast_is_fitted_changes_no_fit(name: str, value: object, packed: DictConfig) -> None:
    assert fit_identity(packed, f"method.fit.{name}", value) == fit_identity(packed)


FITTING = {"sigma": 0.1, "steps": 3, "layers": [4], "timestep": 40, "crop": 0.8, "lr": 0.1, "init_crops": 4}


@pytest.mark.parametrize("key", [*(f"method.fit.{name}" for name in FITTING), "seed"])
def test_what_a_fit_depends_on_is_fitted_again(key: str, packed: DictConfig) -> None:
    value = FITTING.get(key.split(".")[-1], 1)
    assert fit_identity(packed, key, value) != fit_identity(packed)


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_pipeline(tmp_path_factory.mktemp("toy"))


def quick(toy: Path, folder: Path) -> list[str]:
    """The packed preset on a toy model, two pairs."""
    model = ["backbone=local", f"backbone.path_or_name={toy}", "backbone.name=toy"]
    small = [
        "data.num_pairs=2",
        "trainer.accelerator=cpu",
        "method.fit.layers=[3]",
        "method.fit.init_crops=4",
    ]
    roots = [f"embeddings_root={folder}/embeddings", f"latents_root={folder}/latents"]
    return [*model, *small, *roots]


def test_a_sweep_over_sigma_encodes_once_and_one_over_readings_fits_once(
    toy: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="diffcorr")

    def run(name: str, *overrides: str) -> str:
        caplog.clear()
        options = ["experiment=ablate", *quick(toy, tmp_path), f"output_dir={tmp_path}/{name}", *overrides]
        evaluate(compose("eval", options))
        return caplog.text

    def scores(name: str) -> list[dict]:
        return json.loads((tmp_path / name / "metrics.json").read_text())

    told = run("first")
    assert " 0 stored" in told
    told = run("sigma", "method.fit.sigma=0.1")
    assert " 0 stored" in told
    assert "crops so far: 0 encoded, " in told
    told = run("reading", "method.transfer.timestep=40", "method.transfer.num_noises=1")
    assert " 0 to fit" in told
    told = run("rounds", "method.fit.rounds=5")
    assert "x 5 rounds" in told
    assert "crops so far: " in told
    fitted = [
        row for row in json.loads((tmp_path / "rounds/timings.json").read_text()) if row["stage"] == "fit"
    ]
    assert [row["total"] - row["items"] for row in fitted] == [fitted[0]["total"] * 4 // 5]
    # what is kept changes no result
    (tmp_path / "latents").rename(tmp_path / "gone")
    run("anew", "method.fit.sigma=0.1", "latents_root=null", f"embeddings_root={tmp_path}/others")
    assert scores("anew") == scores("sigma")


def test_one_command_sweeps_resumes_and_reports(
    toy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through Hydra itself, in this process; the second start has one value more."""
    spec = importlib.util.spec_from_file_location("sweep_main", REPOSITORY / "eval.py")
    assert spec is not None
    assert spec.loader is not None
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    folder = tmp_path / "sweep"
    # "disabled" would disable all loggers for the tests that follow
    quiet = ["hydra/job_logging=none", "hydra/hydra_logging=none"]
    for sigmas in ("0.05", "0.05,0.1"):
        words = ["-m", "experiment=ablate_sigma", *quick(toy, tmp_path), f"output_dir={folder}", *quiet]
        monkeypatch.setattr(sys, "argv", ["eval.py", *words, f"method.fit.sigma={sigmas}"])
        program.main()
        GlobalHydra.instance().clear()
    runs = sorted(path for path in folder.iterdir() if path.is_dir() and path.name != "report")
    assert len(runs) == 2
    for run in runs:
        told = json.loads((run / "run-correspondence.json").read_text())["overrides"]
        assert sum(word.startswith("method.fit.sigma=") for word in told) == 1
        # what was done was not done again
        rows = json.loads((run / "timings.json").read_text())
        assert [row["stage"] for row in rows if row["items"]] == ["fit", "predict"]
    report = json.loads((folder / "report" / "ablation.json").read_text())
    assert report["keys"] == ["method.fit.sigma"]
    assert [row["method.fit.sigma"] for row in report["settings"]] == ["0.05", "0.1"]
    assert all(row["value"] != "" and row["differs"] == "" for row in report["settings"])


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_value_of_a_shipped_sweep_is_valid(name: str) -> None:
    config = compose("eval", [f"experiment={name}"])
    assert (config.data.split, config.output_dir) == ("val", f"outputs/ablations/{name[7:]}")
    for key, values in params(name).items():
        for value in values:
            changed = copy.deepcopy(config)
            OmegaConf.update(changed, key, value)
            _, part, field = key.split(".")
            found = getattr(instantiate(changed.method).keywords[part], field)  # refuses what is out of range
            assert (list(found) if isinstance(found, tuple) else found) == value
    text = (config_folder() / "experiment" / f"{name}.yaml").read_text()
    assert f"python eval.py -m experiment={name}\n" in text


def test_the_large_sweep_has_24_runs_on_60_pairs() -> None:
    values = params("ablate_grid").values()
    assert len(list(product(*values))) == 24
    assert compose("eval", ["experiment=ablate_grid"]).data.num_pairs == 60


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_a_sweep_of_wandb_runs_what_the_experiment_runs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command that W&B's own agent makes of the file, through our configuration."""
    sweep = yaml.safe_load(path.read_text())
    values = {key: node["values"] for key, node in sweep["parameters"].items()}
    assert values == params(sweep["name"])
    assert (sweep["method"], sweep["name"]) == ("grid", path.stem)
    first = {"args": {key: {"value": options[0]} for key, options in values.items()}}
    command = []
    for word in create_sweep_command(sweep["command"]):
        macro = word[2:-1] if word.startswith("${") else ""
        command += create_sweep_command_args(first).get(macro, [word])
    program = command.index("${program}")
    monkeypatch.setenv("WANDB_RUN_ID", "abc")
    config = compose("eval", command[program + 1 :])
    assert config.output_dir.endswith("/abc")
    assert config.logger._target_ == "diffcorr.config.wandb_logger"
    assert (REPOSITORY / sweep["program"]).exists()
    metric = sweep["metric"]["name"]
    assert metric == f"{config.method.name}/pck@0.10 {config.protocol.name}"


@pytest.mark.parametrize("launcher", ["basic", "joblib", "submitit_local", "slurm"])
def test_launchers_compose(launcher: str) -> None:
    if launcher != "basic":
        pytest.importorskip(
            f"hydra_plugins.hydra_{'joblib' if launcher == 'joblib' else 'submitit'}_launcher"
        )
    with hydra.initialize_config_dir(str(config_folder()), version_base="1.3"):
        words = ["experiment=ablate_sigma", f"hydra/launcher={launcher}"]
        found = hydra.compose("eval", overrides=words, return_hydra_config=True).hydra
    assert found.sweeper.params == {"method.fit.sigma": "0.02,0.035,0.055,0.08,0.12"}
    if launcher == "slurm":
        assert found.launcher._target_.endswith("SlurmLauncher")
        assert (found.launcher.gpus_per_node, found.launcher.max_num_timeout) == (1, 3)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["joblib", "submitit_local"])
def test_runs_in_processes_of_their_own(launcher: str, toy: Path, tmp_path: Path) -> None:
    plugin = "joblib" if launcher == "joblib" else "submitit"
    pytest.importorskip(f"hydra_plugins.hydra_{plugin}_launcher")
    words = ["-m", "experiment=ablate_sigma", *quick(toy, tmp_path), f"output_dir={tmp_path}/sweep"]
    command = [sys.executable, "eval.py", *words, f"hydra/launcher={launcher}", "method.fit.sigma=0.05,0.1"]
    subprocess.run(command, cwd=REPOSITORY, check=True, timeout=500)
    report = json.loads((tmp_path / "sweep/report/ablation.json").read_text())
    assert [row["unfinished"] for row in report["settings"]] == ["", ""]
