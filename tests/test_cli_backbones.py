"""The commands that say which models there are, and which layer is which."""

import json
from pathlib import Path

import pytest

from diffcorr.cli import main
from diffcorr.cli_backbones import describe
from diffcorr.config import option_names
from tests.helpers.tiny_models import save_tiny_family, save_tiny_pipeline


def test_layers_of_stable_diffusion_15(capsys: pytest.CaptureFixture[str]) -> None:
    """Counted in the published U-Net: two layers a block on the way down, three on the way up."""
    assert main(["backbones", "show", "sd15", "--kind", "cross"]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines if line.startswith("cross")]
    down, up = [64, 64, 32, 32, 16, 16], [16] * 3 + [32] * 3 + [64] * 3
    assert [row[2] for row in rows] == [f"{side}x{side}" for side in (*down, 8, *up)]
    assert [row[1] for row in rows if "*" in row[1]] == ["7*", "8*", "9*", "10*"]
    assert {row[3] for row in rows} == {"8"}
    assert rows[7][4] == "up_blocks.1.attentions.0.transformer_blocks.0.attn2"
    assert "512 x 512 pixels, or other sides that are multiples of 64" in lines[1]
    assert "(mean - 0) x 0.18215" in lines[2]


def test_a_folder_for_machines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = save_tiny_family(tmp_path, "sd35")
    for part in folder.rglob("*.safetensors"):
        part.unlink()  # configurations are enough
    assert main(["backbones", "show", str(folder), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["needs"]["family"] == "SD3"
    assert found["needs"]["prediction"] == "flow"
    assert [(layer["kind"], layer["joint"]) for layer in found["layers"]] == [
        *[("cross", True)] * 3,
        *[("self", True), ("self", False)] * 2,
        ("self", True),
    ]
    assert {layer["side"] for layer in found["layers"]} == {4}


def test_the_list_has_every_backbone(monkeypatch: pytest.MonkeyPatch, capsys, tmp_path: Path) -> None:
    """All but the architectures, which take seconds to build: those are in tests/backbones."""
    small = describe(str(save_tiny_pipeline(tmp_path)))
    monkeypatch.setattr("diffcorr.cli_backbones.describe", lambda name: small | {"name": name})
    assert main(["backbones"]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = [name for name in option_names("backbone") if name != "local"]
    assert [line.split()[0] for line in lines[1 : 1 + len(names)]] == names
    assert main(["backbones", "--json"]) == 0
    assert [entry["name"] for entry in json.loads(capsys.readouterr().out)] == names


def test_what_is_no_backbone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["backbones", "show", "sd99"]) == 2
    assert "error: unknown backbone 'sd99'; known: tiny, sd14" in capsys.readouterr().err
    assert main(["backbones", "show", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "found no unet/config.json or transformer/config.json" in line
