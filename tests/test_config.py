"""Configurations through the real Hydra: what comes out of them, and how mistakes are told."""

import json
import subprocess
import sys
from collections import OrderedDict
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import pytest
import yaml
from lightning.pytorch.loggers import CSVLogger, WandbLogger
from omegaconf import OmegaConf

from diffcorr import config
from diffcorr.errors import DataError, DiffcorrError, StoreError, UnknownNameError

REPOSITORY = Path(__file__).resolve().parent.parent

MAIN = """
defaults:
  - _self_
  - backbone: small
  - logger: csv
  - trainer: default
  - optional debug: null
output_dir: ???
seed: 0
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A config folder of a few made-up backbones, and the package's own loggers and trainers."""
    groups = tmp_path / "configs"
    (groups / "backbone").mkdir(parents=True)
    (groups / "main.yaml").write_text(MAIN)
    (groups / "backbone" / "small.yaml").write_text("_target_: fractions.Fraction\nnumerator: 3\n")
    (groups / "backbone" / "large.yaml").write_text("_target_: fractions.Fraction\nnumeratr: 3\n")
    for group in ("logger", "trainer", "debug"):
        (groups / group).symlink_to(REPOSITORY / "configs" / group)
    monkeypatch.setattr(config, "config_folder", lambda: groups)
    return groups


def single_line(error: pytest.ExceptionInfo) -> str:
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_composed_node_becomes_its_object(folder):
    node = config.compose("main", ["backbone.numerator=7"]).backbone
    assert config.instantiate(node) == Fraction(7)
    assert config.instantiate(node, denominator=2) == Fraction(7, 2)
    assert config.instantiate(None) is None


def test_an_unknown_option_lists_what_exists(folder):
    with pytest.raises(UnknownNameError, match="unknown backbone 'huge'; known: large, small") as error:
        config.compose("main", ["backbone=huge"])
    single_line(error)


@pytest.mark.parametrize(
    ("override", "told"),
    [("sed=1", "'sed'"), ("seed", "'seed'"), ("seed=[1", "'[1'"), ("~nothing", "'nothing'")],
)
def test_an_override_that_means_nothing_is_one_line(folder, override, told):
    with pytest.raises(DiffcorrError) as error:
        config.compose("main", [override])
    assert told in single_line(error)


def test_a_target_that_refuses_its_arguments_is_one_line(folder):
    with pytest.raises(DiffcorrError, match=r"numeratr.*config key 'backbone'") as error:
        config.instantiate(config.compose("main", ["backbone=large"]).backbone)
    single_line(error)


@pytest.mark.parametrize("target", ["diffcorr.nothing.Gone", "diffcorr.errors.Gone", "nothing.Gone"])
def test_a_target_that_does_not_exist_is_one_line(target):
    with pytest.raises(DiffcorrError, match="Gone") as error:
        config.instantiate({"_target_": target})
    single_line(error)


def test_a_missing_value_names_its_key(folder, tmp_path):
    with pytest.raises(DiffcorrError, match=r"'logger\.folder', found none") as error:
        config.instantiate(config.compose("main").logger)
    single_line(error)
    with pytest.raises(DiffcorrError, match="'output_dir', found none") as error:
        config.prepare_run_folder(tmp_path / "run", config.compose("main"))
    single_line(error)


def test_what_a_target_itself_raises_passes_unchanged(tmp_path):
    (tmp_path / "file").write_text("")
    store = {"_target_": "diffcorr.stores.MaskStore", "folder": str(tmp_path / "file" / "x")}
    with pytest.raises(StoreError):
        config.instantiate(store)
    with pytest.raises(ZeroDivisionError):
        config.instantiate({"_target_": "fractions.Fraction", "numerator": 1, "denominator": 0})


@dataclass(frozen=True)
class Fit:
    lr: float = 1.0
    layers: tuple[int, ...] = (7, 8)
    name: str | None = None


def test_the_hash_is_of_the_values():
    expected = config.config_hash(Fit())
    assert len(expected) == 12
    assert int(expected, 16) >= 0
    assert config.config_hash({"layers": [7, 8], "name": None, "lr": 1}) == expected
    assert config.config_hash(OmegaConf.create({"name": None, "lr": 1.0, "layers": [7, 8]})) == expected
    assert config.config_hash(OmegaConf.create({"a": 1, "layers": [7, "${a}"]})) == config.config_hash(
        OrderedDict(layers=(7, 1), a=1)
    )
    different = [Fit(lr=1.5), Fit(layers=(8, 7)), Fit(layers=(78,)), Fit(name=""), Fit(name="None"), [1.0]]
    assert len({config.config_hash(value) for value in different} | {expected}) == 7


def test_the_hash_is_the_same_in_another_process():
    code = (
        "from diffcorr.config import config_hash; print(config_hash({'b': 0.1, 'a': {'c': 'x', 'd': True}}))"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert told.strip() == config.config_hash({"a": {"d": True, "c": "x"}, "b": 0.1})


def test_what_is_no_plain_value_has_no_hash():
    with pytest.raises(DiffcorrError, match="Fraction"):
        config.config_hash({"a": Fraction(1, 2)})


def test_a_run_folder_describes_its_run(folder, tmp_path):
    run = config.prepare_run_folder(
        tmp_path / "a" / "run", config.compose("main", [f"output_dir={tmp_path}"]), seed=5
    )
    written = yaml.safe_load((run / "config.yaml").read_text())
    assert written["backbone"] == {"_target_": "fractions.Fraction", "numerator": 3}
    assert written["trainer"]["default_root_dir"] == str(tmp_path)
    described = json.loads((run / "run.json").read_text())
    assert described["seed"] == 5
    import torch  # the version that really runs

    assert described["versions"]["torch"] == torch.__version__
    assert sorted(file.name for file in run.iterdir()) == ["config.yaml", "run.json"]


def test_configurations_that_share_a_folder_keep_apart(tmp_path):
    for value in (1, 2, 1, 3):
        config.prepare_run_folder(tmp_path, {"a": value}, task="correspondence")
    names = {path.name: path.read_text() for path in tmp_path.glob("config*")}
    assert names == {
        "config-correspondence.yaml": "a: 1\n",
        "config-correspondence-2.yaml": "a: 2\n",
        "config-correspondence-3.yaml": "a: 3\n",
    }
    assert len(list(tmp_path.glob("run-correspondence*.json"))) == 3


def test_run_metadata_names_no_host_user_or_folder():
    import getpass
    import platform

    told = json.dumps(config.run_metadata())
    assert str(Path.home()) not in told
    assert str(REPOSITORY) not in told
    for name in (platform.node(), getpass.getuser()):
        assert f'"{name}"' not in told


def test_git_state_tells_commit_and_change(tmp_path):
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", str(tmp_path)]
    assert config._git_state(tmp_path) is None
    (tmp_path / "file").write_text("1")
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "x"]):
        subprocess.run([*git, *command], check=True)
    commit = subprocess.run([*git, "log", "--format=%H"], capture_output=True, text=True, check=True).stdout
    assert config._git_state(tmp_path) == {"commit": commit.strip(), "dirty": False}
    (tmp_path / "file").write_text("2")
    assert config._git_state(tmp_path) == {"commit": commit.strip(), "dirty": True}


def test_a_run_folder_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="choose another folder") as error:
        config.prepare_run_folder(tmp_path / "file" / "run")
    single_line(error)


def test_loggers_are_what_the_configs_say(folder, tmp_path, monkeypatch):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    made = {
        name: config.instantiate(config.compose("main", [f"logger={name}", f"output_dir={tmp_path}"]).logger)
        for name in ("csv", "wandb", "none")
    }
    assert isinstance(made["csv"], CSVLogger)
    assert Path(made["csv"].log_dir).is_relative_to(tmp_path)
    assert isinstance(made["wandb"], WandbLogger)
    assert made["wandb"]._offline
    assert made["none"] is False


@pytest.mark.parametrize(
    "debug", sorted(path.stem for path in (REPOSITORY / "configs" / "debug").glob("*.yaml"))
)
def test_every_debug_config_makes_a_trainer_on_the_cpu(folder, tmp_path, debug):
    composed = config.compose("main", [f"debug={debug}", f"output_dir={tmp_path}"])
    assert composed.trainer.accelerator == "cpu"
    assert config.instantiate(composed.logger) is False
    trainer = config.instantiate(composed.trainer, logger=False)
    assert bool(trainer.fast_dev_run) == (debug == "fast")


@pytest.fixture
def command(folder, tmp_path, monkeypatch):
    """Run an entry point as a command line would; gives what it returned to its caller."""
    monkeypatch.setenv("HYDRA_FULL_ERROR", "0")

    def run(*overrides: str) -> list[object]:
        seen: list[object] = []

        @config.entry_point("main")
        def main(cfg):
            if cfg.seed == 1:
                raise DataError("the data set is empty")
            if cfg.seed == 2:
                raise KeyError("a defect")
            if cfg.seed == 4:
                raise FileNotFoundError("a defect")
            seen.append((cfg.seed, cfg.output_dir))

        fixed = [f"hydra.run.dir={tmp_path}", "hydra.output_subdir=null"]
        monkeypatch.setattr(sys, "argv", ["main.py", *fixed, *overrides])
        main()
        return seen

    return run


def test_an_entry_point_gets_its_configuration(command):
    assert command("seed=3", "output_dir=x") == [(3, "x")]


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["output_dir=x", "seed=1"], "error: the data set is empty"),
        (["backbone=huge"], "error: unknown backbone 'huge'; known: large, small"),
        (
            ["seed=0"],
            "error: expected a value of config key 'output_dir', found none: set it with output_dir=...",
        ),
    ],
)
def test_an_entry_point_ends_user_errors_in_one_line(command, overrides, told):
    with pytest.raises(SystemExit) as stop:  # a string as exit status is printed on stderr
        command(*overrides)
    assert stop.value.code == told


def test_an_entry_point_hides_no_defect(command):
    with pytest.raises(KeyError, match="a defect"):
        command("output_dir=x", "seed=2")
    with pytest.raises(FileNotFoundError):
        command("output_dir=x", "seed=4")


def test_an_output_folder_that_hydra_cannot_make_is_one_line(command, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit) as stop:
        command("output_dir=x", f"hydra.run.dir={tmp_path / 'file' / 'run'}")
    assert "choose another" in stop.value.code
    assert "\n" not in stop.value.code
