"""``diffcorr score`` and ``diffcorr score import`` in this process, on PartWorld's own pairs."""

import csv
import json
from pathlib import Path

import pytest

from diffcorr.cli import main
from diffcorr.data.partworld import PartWorldPairs
from diffcorr.metrics import compare_points, score_points
from diffcorr.stores import MetricRecord, PredictionStore
from diffcorr.types import PointPrediction

DATA = ["--data", "partworld_pairs", "--data-option", "num_pairs=9"]
PAIRS = PartWorldPairs(num_pairs=9).pairs


def predictions(shift: float) -> list[PointPrediction]:
    """The truth, every other keypoint moved."""
    return [
        PointPrediction(pair.pair_id, name, f"q/{name}", x + shift * (n % 2), y, 0.5)
        for pair in PAIRS
        for n, (name, (x, y)) in enumerate(zip(pair.keypoints, pair.target_points, strict=True))
    ]


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    with PredictionStore(tmp_path / "store") as kept:
        for seed, shift in ((0, 6.0), (1, 9.0)):
            kept.add("dift", seed, predictions(shift), "abc")
            kept.add("chance", seed, predictions(40.0), "abc")
    return tmp_path / "store"


def test_scores_are_those_of_the_functions(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["standard", "per_point", "legacy_hedlin_spair"]
    assert main(["score", "store", *DATA, "--protocol", *names, "--json", "out/s.json"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    lines = printed.out.splitlines()
    for name in names:
        assert f"pck@0.10 ({name})" in lines[0]
    # one row for each method: its two seeds under all protocols, in columns of their own
    assert [line.split(" | ")[2] for line in lines[2:4]] == ["chance", "dift"]
    assert lines[2].endswith("| 9 items, 2 seeds |")
    num_points = sum(len(pair.keypoints) for pair in PAIRS)
    assert f"dift, seed 1: {num_points} points of 9 pairs" in lines
    read = json.loads(Path("out/s.json").read_text())
    assert (read["data"], read["split"], read["data_options"]) == ("partworld", "test", {"num_pairs": 9})
    found = {(r["protocol"], r["method"], r["seed"], r["metric"]): r["value"] for r in read["records"]}
    for name in names:
        for seed, shift in ((0, 6.0), (1, 9.0)):
            expected = score_points(predictions(shift), PAIRS, name).compute()
            for metric, value in expected.items():
                assert found[name, "dift", seed, metric] == pytest.approx(100 * value.item())
    assert len(read["records"]) == 2 * 2 * 3 * 2
    assert all(MetricRecord.from_dict(record).protocol in names for record in read["records"])


def test_differences_and_parts(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["score", "store", *DATA, "--protocol", "per_category", "--against", "chance"]
    assert main([*command, "--by", "category", "geometry", "difficulty", "--json", "-"]) == 0
    read = json.loads(capsys.readouterr().out)
    of_seeds = [score_points(predictions(shift), PAIRS, "per_category") for shift in (6.0, 9.0)]
    other = [score_points(predictions(40.0), PAIRS, "per_category")] * 2
    (first, _) = read["comparisons"]
    expected = compare_points(of_seeds, other, "pck@0.10").times(100)
    assert (first["method"], first["against"], first["protocol"]) == ("dift", "chance", "per_category")
    assert first["difference"] == round(expected.difference, 2)
    assert first["interval95"] == [round(expected.low, 2), round(expected.high, 2)]
    groups = {record.get("group") for record in read["records"]}
    assert {None, "category=cat", "geometry=look-alike", "truncation=0"} <= groups
    assert main([*command, "--by", "category"]) == 0
    out = capsys.readouterr().out
    assert "| category=cat | dift |" in out
    assert "dift - chance, pck@0.10 (per_category): +" in out


def test_what_is_handled_is_said_beside_the_number(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with PredictionStore("part") as kept:
        kept.add("dift", 0, predictions(6.0)[1:], "abc")
        kept.add("dift", 0, [PointPrediction("pear", "eye", "q", 1.0, 1.0, 1.0)], "abc")
    choices = ["--missing", "wrong", "--unknown", "skip"]
    assert main(["score", "part", *DATA, *choices]) == 0
    out = capsys.readouterr().out
    assert "| missing=wrong, unknown=skip | dift |" in out
    assert "1 missing (wrong), 1 unknown (skip)" in out
    assert main(["score", "part", *DATA, *choices, "--json", "-"]) == 0
    (count,) = json.loads(capsys.readouterr().out)["counts"]
    assert (count["missing"], count["unknown"], count["nan"]) == (1, 1, 0)


def test_the_newest_complete_run_counts_and_says_so(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for shift, config_hash in ((40.0, "older"), (0.0, "newer")):
        with PredictionStore("again") as kept:
            kept.add("dift", 0, predictions(shift), config_hash)
    with PredictionStore("again") as kept:  # a run with other settings that was not finished
        kept.add("dift", 0, predictions(9.0)[:-1], "half")
    assert main(["score", "again", *DATA]) == 0
    out = capsys.readouterr().out
    assert "| 100.0 | 100.0 |" in out
    assert "configuration newer counts, not older, half" in out
    assert main(["score", "again", *DATA, "--config", "older", "--json", "-"]) == 0
    read = json.loads(capsys.readouterr().out)
    expected = score_points(predictions(40.0), PAIRS).compute()["pck@0.10"].item()
    assert read["records"][0]["value"] == pytest.approx(100 * expected)
    (count,) = read["counts"]
    assert (count["config_hash"], count["superseded"]) == ("older", ["newer", "half"])
    # the first again, which finds all its predictions stored
    kept.renew("dift", 0, "older")
    assert main(["score", "again", *DATA]) == 0
    assert "configuration older counts, not newer, half" in capsys.readouterr().out


def test_of_runs_that_were_not_finished_none_counts(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for part, config_hash in ((slice(4), "abc"), (slice(2, None), "def")):
        with PredictionStore("again") as kept:
            kept.add("dift", 0, predictions(0.0)[part], config_hash)
    assert main(["score", "again", *DATA, "--missing", "wrong"]) == 2
    error = capsys.readouterr().err
    assert f"found abc with 4, def with {len(predictions(0.0)) - 2}: run the one that is meant" in error
    assert error.count("\n") == 1
    assert main(["score", "again", *DATA, "--missing", "skip", "--config", "def"]) == 0
    assert "2 missing (skip)" in capsys.readouterr().out


def test_rows_of_two_writers(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for shifts, code in (((6.0, 6.0), 0), ((6.0, 7.0), 2)):
        name = f"twice{code}"
        writers = [PredictionStore(name), PredictionStore(name)]
        for kept, shift in zip(writers, shifts, strict=True):
            kept.add("dift", 0, predictions(shift), "abc")
            kept.flush()
        assert main(["score", name, *DATA]) == code
        assert ("duplicates=first or duplicates=last" in capsys.readouterr().err) == bool(code)
    assert main(["score", "twice2", *DATA, "--duplicates", "last"]) == 0
    moved = sum(n % 2 for pair in PAIRS for n in range(len(pair.keypoints)))
    assert f"{moved} duplicates (last)" in capsys.readouterr().out


def run_folder(**data: object) -> Path:
    """What eval.py leaves of its configuration, beside predictions of nine pairs and of a later three."""
    node = {"_target_": "diffcorr.data.partworld.PartWorldPairs", "split": "test", "kind": "same", **data}
    for number, count in (("", 9), ("-2", 12)):
        config = {"data": {**node, "num_pairs": count}, "backbone": {"name": "toy"}}
        path = Path(f"run/config-correspondence{number}.yaml")
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(config))
    later = PartWorldPairs(num_pairs=12).pairs[9:]
    with PredictionStore("run/predictions") as kept:
        kept.add("dift", 0, predictions(6.0), "abc")
        kept.add(
            "dift", 0, [PointPrediction(p.pair_id, k, "", 0, 0, 1) for p in later for k in p.keypoints], "abc"
        )
    return Path("run")


def test_a_run_folder_knows_its_pairs(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run_folder()
    for name in (folder, folder / "predictions"):
        assert main(["score", str(name)]) == 0
        assert "| toy | partworld test | dift |" in capsys.readouterr().out
    # a part of them: the others are no mistake, and are counted
    assert main(["score", "run", *DATA, "--json", "-"]) == 0
    read = json.loads(capsys.readouterr().out)
    (count,) = read["counts"]
    assert (count["pairs"], count["unknown"]) == (9, 0)
    assert count["elsewhere"] == sum(len(p.keypoints) for p in PartWorldPairs(num_pairs=12).pairs[9:])
    expected = score_points(predictions(6.0), PAIRS).compute()["pck@0.10"].item()
    assert read["records"][0]["value"] == pytest.approx(100 * expected)
    # a pair of none of its lists is a mistake as ever
    with PredictionStore("run/predictions") as kept:
        kept.add("dift", 0, [PointPrediction("pear", "eye", "q", 1.0, 1.0, 1.0)], "abc")
    assert main(["score", "run"]) == 2
    assert "found 1 predictions that 12 pairs to score do not have" in capsys.readouterr().err


def test_a_run_whose_data_are_gone(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = run_folder()
    for path in folder.glob("config-*"):
        target = {"_target_": "diffcorr.data.spair.SPair", "root": "gone", "split": "test"}
        path.write_text(json.dumps({"data": target}))
    assert main(["score", "run"]) == 2
    assert "expected SPair-71k in gone, found no such folder" in capsys.readouterr().err
    assert main(["score", "run", *DATA, "--unknown", "skip"]) == 0  # named, they need not be there
    capsys.readouterr()
    path.write_text("- a list\n- [")
    assert main(["score", "run"]) == 2
    error = capsys.readouterr().err
    assert "found none that can be read: restore it" in error
    assert error.count("\n") == 1


def test_a_run_folder_does_not_choose_what_code_runs(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, data in enumerate(
        ({"_target_": "os.mkdir", "path": "made"}, {"kind": {"_target_": "os.getcwd"}})
    ):
        run_folder(**data).rename(f"run{number}")
        assert main(["score", f"run{number}"]) == 2
        assert "name their data with --data" in capsys.readouterr().err
        assert not Path("made").exists()


def test_import_then_score(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with open("theirs.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["pair_id", "keypoint", "x", "y"])
        writer.writerows((p.pair_id, p.keypoint, p.x, p.y) for p in predictions(6.0))
    assert main(["score", "import", "theirs.csv", "store", "--method", "theirs"]) == 0
    assert capsys.readouterr().out == f"{len(predictions(6.0))} predictions of theirs added to store\n"
    assert main(["score", "store", *DATA, "--method", "theirs", "dift", "--json", "-"]) == 0
    values = {
        (r["method"], r["metric"]): r["value"]
        for r in json.loads(capsys.readouterr().out)["records"]
        if r["seed"] == 0
    }
    assert values["theirs", "pck@0.10"] == values["dift", "pck@0.10"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nowhere", *DATA], "expected stored predictions (predictions-*.parquet) in 'nowhere'"),
        (["store", "--data", "spare"], "unknown data 'spare'"),
        (["store", "--data", "partworld_images"], "expected a data set with pairs"),
        (["store", *DATA, "--data-option", "split=tset"], "unknown split of partworld 'tset'"),
        (["store", *DATA, "--data-option", "colour=red"], "colour"),
        (["store", *DATA, "--protocol", "standart"], "unknown protocol 'standart'"),
        (["store", *DATA, "--protocol", "per_image"], "found 'per_image', which scores masks"),
        (["store", *DATA, "--method", "dino"], "unknown method in the store 'dino'; known: chance, dift"),
        (["store", *DATA, "--against", "dino"], "unknown method in the store 'dino'"),
        (["store", *DATA, "--by", "weather"], "unknown breakdown 'weather'; known: category"),
        (["store", *DATA, "--config", "abc", "123"], "unknown configuration in the store '123'; known: abc"),
        (["store"], "name their data with --data"),
        (["store", "--data-option", "num_pairs=9"], "name it with --data"),
        (["store", *DATA[:2]], "chance, seed 0: pair "),
        (["store", "--data", "partworld_pairs", "--data-option", "num_pairs=1"], "unknown=skip"),
        (["store", *DATA, "--json", "store"], "found the folder 'store'"),
        (["import", "nothing.csv", "store", "--method", "m"], "cannot read 'nothing.csv'"),
    ],
)
def test_a_mistake_is_one_line_and_status_1(
    store: Path, words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["score", *words]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: ")
    assert told in printed.err
    assert printed.err.count("\n") == 1


@pytest.mark.parametrize("words", [["score"], ["score", "import"]])
def test_help_has_an_example(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*words, "--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: diffcorr {' '.join(words)} ")
    assert f"example:\n  diffcorr {' '.join(words)} " in out
