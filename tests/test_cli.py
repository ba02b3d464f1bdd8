"""The command line in this process: what it prints, writes and returns."""

import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import diffcorr
from diffcorr.cli import main
from diffcorr.correspondence.prompt_fit import FitProgress
from diffcorr.terminal import FitBar, paint
from tests.helpers.fit_reference import image_of
from tests.helpers.tiny_models import save_tiny_pipeline

SETTINGS = {"steps": 2, "rounds": 1, "num_crops": 4, "loss_resolution": 16, "layers": [5, 6]}
SET = [word for key, value in SETTINGS.items() for word in ("--set", f"{key}={json.dumps(value)}")]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model and two pictures."""
    place = tmp_path_factory.mktemp("place")
    save_tiny_pipeline(place / "model")
    Image.fromarray(image_of(0, 60, 40)).save(place / "a.png")
    Image.fromarray(image_of(1, 21, 33)).save(place / "b.png")
    return place


@pytest.fixture(autouse=True)
def _there(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


def test_match_is_the_api(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["match", "a.png", "b.png", "--point", "45,30", "--point", "59.5,0", "--backbone", "model"]
    assert main([*command, *SET, "--seed", "3", "--out", "out/match.png", "--json", "out/match.json"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    expected = diffcorr.Matcher.from_pretrained("model", seed=3, **SETTINGS).match(  # type: ignore[arg-type]
        "a.png", "b.png", [(45, 30), (59.5, 0)]
    )
    read = json.loads(Path("out/match.json").read_text())
    assert {key: read[key] for key in expected.to_dict()} == expected.to_dict()
    assert (read["source"], read["target"], read["backbone"], read["seed"]) == ("a.png", "b.png", "model", 3)
    assert read["settings"] == SETTINGS
    assert read["diffcorr"] == diffcorr.__version__
    u, v = expected.targets[1]
    assert printed.out.splitlines()[1].startswith(f"(59.5, 0) -> ({u:.1f}, {v:.1f})  confidence 0.")
    assert len(printed.out.splitlines()) == 2
    with Image.open("out/match.png") as picture:
        assert picture.format == "PNG"


def test_segment_is_the_api(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["segment", "a.png", "--backbone", "model", "--tau", "1e-4", "--set", "anchors=8"]
    assert main([*command, "--json", "-", "--out", "masks.png"]) == 0
    read = json.loads(capsys.readouterr().out)
    expected = diffcorr.Segmenter.from_pretrained("model", tau=1e-4, anchors=8).segment("a.png")
    assert {key: read[key] for key in expected.to_dict()} == expected.to_dict()
    assert (read["image"], read["method"]) == ("a.png", "diffseg_paper")
    assert Path("masks.png").is_file()
    assert main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == expected.num_segments > 1
    share = 100 * np.mean(expected.mask == 1)
    assert lines[1].startswith(f"segment 1: {share:.1f} % of the image, box ")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["match", "a.png", "b.png", "--point", "61,3", *SET], "point 1 inside its image of 60x40"),
        (["match", "no.png", "b.png", "--point", "1,3", *SET], "no file at no.png"),
        (["match", "a.png", "b.png", "--point", "nan,3", *SET], "finite points"),
        (["match", "a.png", "b.png", "--point", "1,3", "--set", "stepz=3"], "unknown setting 'stepz'"),
        (["match", "a.png", "b.png", "--point", "1,3", "--set", "seed=3"], "--set seed=...: use the option"),
        (["match", "a.png", "b.png", "--point", "1,3", "--preset", "best"], "unknown preset 'best'"),
        (["segment", "a.png", "--device", "quantum"], "expected a device"),
        (["segment", "model/unet/config.json"], "readable image"),
        (["segment", "a.png", "--out", "a.png/masks.png"], "folder that can be written"),
        (["segment", "a.png", "--json", "model"], "found the folder 'model'"),
        (["segment", "a.png", "--backbone", "modle"], "unknown backbone 'modle'"),
        (["segment", "a.png", "--tau", "-1"], "positive thresholds"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    backbone = [] if "--backbone" in words else ["--backbone", "model"]
    assert main([*words, *backbone]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert told in printed.err
    assert printed.err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["match", "a.png", "b.png", "--point", "12"], "expected X,Y such as 120,88, found '12'"),
        (["match", "a.png", "b.png", "--point", "1,2,3"], "found '1,2,3'"),
        (["match", "a.png", "b.png"], "--point"),
        (["match", "a.png", "b.png", "--point", "1,2", "--set", "steps"], "expected KEY=VALUE"),
        (["dance"], "dance"),
        ([], "required"),
    ],
)
def test_a_command_that_cannot_be_parsed_shows_its_usage(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(words)
    assert stop.value.code == 2
    assert told in capsys.readouterr().err


def test_segments_are_named_by_words(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["segment", "a.png", "--backbone", "model", "--tau", "1e-4"]
    assert main([*command, "--words", "red, ab", "--template", "a {}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines
    assert all(line.endswith((", red", ", ab")) for line in lines)
    assert main([*command, "--caption", "a red c", "--words", "sky"]) == 2
    assert "error: unknown word of the caption 'sky'; known: red, c" in capsys.readouterr().err


@pytest.mark.parametrize("words", [[], ["match"], ["segment"], ["words"], ["app"]])
def test_help_has_an_example(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*words, "--help"])
    assert stop.value.code == 0
    told = capsys.readouterr().out
    assert f"example:\n  diffcorr {words[0] if words else 'match'}" in told
    assert "exit status: 0" in told


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"diffcorr {diffcorr.__version__}\n"


def test_several_targets_fitted_once_and_found_again(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["match", "a.png", "b.png", "a.png", "--point", "45,30", "--backbone", "model", *SET]
    assert main([*command, "--out", "two/match.png", "--json", "-", "--save", "two/points.safetensors"]) == 0
    found = json.loads(capsys.readouterr().out)["targets"]
    assert [one["target"] for one in found] == ["b.png", "a.png"]
    assert sorted(path.name for path in Path("two").iterdir()) == [
        *("match-1.png", "match-2.png", "points.safetensors")
    ]
    again = ["match", "--fitted", "two/points.safetensors", "b.png", "--backbone", "model", *SET]
    assert main([*again, "--json", "-"]) == 0
    read = json.loads(capsys.readouterr().out)
    assert read["matches"] == found[0]["matches"]
    assert main([*again, "--set", "steps=3"]) == 2
    assert "fitted with steps=3, found 2" in capsys.readouterr().err
    assert main([*again, "--cycle"]) == 2
    assert main(["match", "a.png", "--point", "1,2", "--backbone", "model"]) == 2
    assert "found the source alone" in capsys.readouterr().err


def test_a_grid_of_which_both_agree(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["match", "a.png", "b.png", "--grid", "20", "--backbone", "model", *SET]
    assert main([*command, "--cycle"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    far = [float(line.split()[-2]) for line in lines]
    assert main([*command, "--mutual", str(min(far) + 0.1)]) == 0
    kept = capsys.readouterr().out.splitlines()
    assert kept[0] in lines
    assert len(kept) == sum(one <= min(far) + 0.1 for one in far)
    assert main([*command, "--mutual", "-1"]) == 0
    assert capsys.readouterr().out == "no point is left\n"


def test_labels_and_the_mask_itself(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["segment", "a.png", "--backbone", "model", "--tau", "1e-4", "--labels", "red, ab"]
    assert main([*command, "--template", "a {}", "--mask", "ids.png"]) == 0
    with Image.open("ids.png") as mask:
        assert len(np.unique(np.asarray(mask))) == len(capsys.readouterr().out.splitlines())


def test_colour_and_progress_are_for_terminals_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for stream, is_one in ((Terminal(), True), (io.StringIO(), False)):
        monkeypatch.setattr(sys, "stderr", stream)
        assert main(["segment", "no.png", "--backbone", "model"]) == 2
        assert ("\033[31merror:\033[0m" in stream.getvalue()) == is_one
        bar = FitBar()
        bar(FitProgress(1, 4, 0.5))
        assert ("25 %  loss 0.50000" in stream.getvalue()) == is_one
    monkeypatch.setenv("NO_COLOR", "1")
    assert paint("x", "red", Terminal()) == "x"


def test_an_interruption_is_no_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("diffcorr.cli_segment._segment", interrupt)
    assert main(["segment", "a.png"]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_the_app_without_gradio_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "gradio", None)
    assert main(["app"]) == 2
    assert "pip install 'diffcorr[app]'" in capsys.readouterr().err
