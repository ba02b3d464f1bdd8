"""Chapters and reports of stored predictions: numbers against scoring each alone, pages by their words."""

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from diffcorr.cli import main
from diffcorr.data.partworld import PartWorldPairs
from diffcorr.errors import ImageError, ProtocolError
from diffcorr.metrics import POINT_PROTOCOLS, Handling, compare_points, score_points
from diffcorr.runs.chapter import read_chapter
from diffcorr.runs.report import write_report
from diffcorr.runs.report_details import by_error
from diffcorr.runs.stored import StoredRun
from diffcorr.stores import PredictionStore
from diffcorr.types import Pair, PointPrediction
from tests.helpers.protocol_reference import random_pairs

PAIRS, PREDICTIONS = random_pairs(40)
PRESETS = list(POINT_PROTOCOLS.values())


def moved(predictions: list[PointPrediction], shift: float) -> list[PointPrediction]:
    return [dataclasses.replace(p, x=p.x + shift * (n % 3)) for n, p in enumerate(predictions)]


def data_of(pairs: list[Pair]) -> SimpleNamespace:
    return SimpleNamespace(name="toy", split="test", pairs=pairs, image=None)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    with PredictionStore(tmp_path / "store") as kept:
        kept.add("good", 0, PREDICTIONS, "a")
        kept.add("good", 1, moved(PREDICTIONS, 4.0), "b")
        kept.add("bad", 0, moved(PREDICTIONS, 40.0), "c")
    return tmp_path / "store"


def test_a_chapter_holds_what_each_score_is_alone(store: Path) -> None:
    chapter = read_chapter([StoredRun(store)], data_of(PAIRS), PRESETS)
    assert list(chapter.methods) == ["good", "bad"]
    seeds = {"good": [PREDICTIONS, moved(PREDICTIONS, 4.0)], "bad": [moved(PREDICTIONS, 40.0)]}
    for protocol in PRESETS:
        scores = {m: [score_points(p, PAIRS, protocol) for p in found] for m, found in seeds.items()}
        for metric in scores["good"][0].names():
            for method, of_seeds in scores.items():
                mean = sum(100 * s.compute()[metric].item() for s in of_seeds) / len(of_seeds)
                found = chapter.estimate(method, protocol.name, metric)
                assert found.value == pytest.approx(mean)
                assert found.low <= found.value <= found.high
                assert found.num_items == len(PAIRS)
            expected = compare_points(scores["good"], scores["bad"], metric).times(100)
            lead = chapter.lead("bad", protocol.name, metric)
            assert lead is not None
            assert dataclasses.astuple(lead) == pytest.approx(dataclasses.astuple(expected))


def test_what_the_protocol_alone_moves(store: Path) -> None:
    chapter = read_chapter([StoredRun(store)], data_of(PAIRS), PRESETS)
    values = {
        p.name: 100 * score_points(moved(PREDICTIONS, 40.0), PAIRS, p).compute()["pck@0.10"].item()
        for p in PRESETS
    }
    found = chapter.moved("bad")
    assert found.points == pytest.approx(max(values.values()) - min(values.values()))
    assert values[found.high_protocol] == pytest.approx(max(values.values()))
    read = json.loads(json.dumps(chapter.to_dict()))
    (row,) = [row for row in read["moved"] if row["method"] == "bad"]
    assert row["points"] == round(found.points, 2)
    assert {(s["method"], s["protocol"]) for s in read["scores"]} == {
        (m, p) for m in ("good", "bad") for p in POINT_PROTOCOLS
    }
    assert {d["protocol"] for d in read["differences"]} == set(POINT_PROTOCOLS)


def test_pairs_from_the_best_to_the_worst(store: Path) -> None:
    chapter = read_chapter([StoredRun(store)], data_of(PAIRS), PRESETS)
    matched = chapter.methods["bad"][0].matched
    order = by_error(chapter, matched)
    found = {(p.pair_id, p.keypoint): p for p in moved(PREDICTIONS, 40.0)}

    def error(pair: Pair) -> float:
        box = pair.target_bbox
        side = max(box[2] - box[0], box[3] - box[1])
        errors = []
        for name, (x, y) in zip(pair.keypoints, pair.target_points, strict=True):
            p = found[pair.pair_id, name]
            errors.append(min(1.0, ((p.x - x) ** 2 + (p.y - y) ** 2) ** 0.5 / side))
        return sum(errors) / len(errors)

    assert [error(PAIRS[place]) for place in order] == pytest.approx(sorted(map(error, PAIRS)))


def test_a_protocol_that_cannot_score_the_pairs_is_left_out(store: Path) -> None:
    unsized = data_of([dataclasses.replace(pair, target_size=(0, 0)) for pair in PAIRS])
    chapter = read_chapter([StoredRun(store)], unsized, PRESETS)
    assert list(chapter.protocols) == ["standard", "per_point", "per_category", "dift"]
    assert "needs a positive image_side length" in chapter.left_out["pf_pascal"]
    with pytest.raises(ProtocolError, match="needs a positive image_side length"):
        read_chapter([StoredRun(store)], unsized, [POINT_PROTOCOLS["pf_pascal"]])
    chosen = [POINT_PROTOCOLS["standard"], POINT_PROTOCOLS["legacy_hedlin_willow"]]
    with pytest.raises(ProtocolError, match="'legacy_hedlin_willow' needs"):
        read_chapter([StoredRun(store)], unsized, chosen, strict=True)


def test_methods_of_which_other_points_are_left_out_are_not_compared(store: Path) -> None:
    with PredictionStore(store) as kept:
        kept.add("part", 0, PREDICTIONS[5:], "d")
    with pytest.raises(ProtocolError, match="part, seed 0: pair "):
        read_chapter([StoredRun(store)], data_of(PAIRS), PRESETS)
    chapter = read_chapter([StoredRun(store)], data_of(PAIRS), PRESETS, handling=Handling(missing="skip"))
    assert not chapter.alike
    assert chapter.lead("part", "standard") is None or chapter.best == "part"
    assert chapter.estimate("part", "per_point").value > 0


def test_runs_that_share_a_method(store: Path, tmp_path: Path) -> None:
    with PredictionStore(tmp_path / "other") as kept:
        kept.add("good", 0, moved(PREDICTIONS, 20.0), "z")
    chapter = read_chapter([StoredRun(store), StoredRun(tmp_path / "other")], data_of(PAIRS), PRESETS)
    assert set(chapter.methods) == {"good [store]", "good [other]", "bad"}


# the command

SAME, CROSS = PartWorldPairs(num_pairs=9), PartWorldPairs(kind="cross", num_pairs=4)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run folder with predictions of two lists of pairs."""
    monkeypatch.chdir(tmp_path)
    folder = Path("run")
    for number, data in (("", {"kind": "same", "num_pairs": 9}), ("-2", {"kind": "cross", "num_pairs": 4})):
        node = {"_target_": "diffcorr.data.partworld.PartWorldPairs", "split": "test", **data}
        folder.mkdir(exist_ok=True)
        text = json.dumps({"data": node, "backbone": {"name": "toy"}})
        (folder / f"config-correspondence{number}.yaml").write_text(text)
    with PredictionStore(folder / "predictions") as kept:
        for method, shift in (("near", 3.0), ("far", 11.0)):
            for data in (SAME, CROSS):
                kept.add(method, 0, shifted(data.pairs, shift), method)
    return folder


def shifted(pairs: list[Pair], shift: float) -> list[PointPrediction]:
    return [
        PointPrediction(pair.pair_id, name, "", x + shift * n, y, 0.5)
        for pair in pairs
        for n, (name, (x, y)) in enumerate(zip(pair.keypoints, pair.target_points, strict=True))
    ]


def test_a_report_of_a_run_folder(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "run", "--figures", "1"]) == 0
    names = ["report.md", "report.html", "protocols.json", "protocols.md"]
    assert capsys.readouterr().out.splitlines() == [str(Path("run/report") / name) for name in names]
    read = json.loads(Path("run/report/protocols.json").read_text())
    assert [(d["dataset"], d["num_pairs"], d["backbones"]) for d in read["data"]] == [
        ("partworld", 9, ["toy"]),
        ("partworld_cross", 4, ["toy"]),
    ]
    for chapter, data in zip(read["data"], (SAME, CROSS), strict=True):
        for row in chapter["scores"]:
            shift = {"near": 3.0, "far": 11.0}[row["method"]]
            score = score_points(shifted(data.pairs, shift), data.pairs, row["protocol"]).compute()
            assert row["value"] == pytest.approx(100 * score[row["metric"]].item(), abs=0.005)
    page = Path("run/report/report.md").read_text()
    for words in (
        "## partworld, test",
        "## partworld_cross, test",
        "| method | standard | per_point | per_category | dift | sd_dino | geoaware |",
        "### Lead of near",
        "### PCK over alpha",
        "| category | near | far | pairs | points |",
        "| part | near | far | pairs | points |",
        "| geometry | near | far | pairs | points |",
        "| look-alike |",
        "| truncation | near | far | pairs | points |",
        "By keypoint",
        "### Worst and best pairs of near",
        "The choice of protocol alone moves the pck@0.10",
        "| prompt fitting | none | [Hedlin et al., NeurIPS 2023](https://arxiv.org/abs/2305.15581), main",
    ):
        assert words in page
    drawn = {path.stem for path in Path("run/report/figures").iterdir()}
    kinds = ("curves-{}", "worst-{}-1", "best-{}-1")
    assert drawn == {kind.format(name) for name in ("partworld", "partworld_cross") for kind in kinds}
    for name in drawn:
        assert page.count(f"](figures/{name}.png)") == 1
    assert Path("run/report/report.html").read_text().count("data:image/png;base64,") == len(drawn)
    assert (
        Path("run/report/protocols.md")
        .read_text()
        .startswith("# Protocols: partworld test and partworld_cross")
    )


def test_what_a_report_is_of_can_be_chosen(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["report", "run/predictions", "--data", "partworld_cross", "--method", "far", "--figures", "0"]
    assert main([*command, "--protocol", "dift", "per_category", "--out", "there"]) == 0
    (chapter,) = json.loads(Path("there/protocols.json").read_text())["data"]
    assert chapter["dataset"] == "partworld_cross"
    assert {(row["method"], row["protocol"]) for row in chapter["scores"]} == {
        ("far", "dift"),
        ("far", "per_category"),
    }
    page = Path("there/report.md").read_text()
    assert "Lead of" not in page
    assert "pck@0.10 under `dift`" in page
    assert [path.name for path in Path("there/figures").iterdir()] == ["curves-partworld_cross.png"]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nowhere"], "expected stored predictions (predictions-*.parquet) in 'nowhere'"),
        (["run", "--data", "spare"], "unknown data 'spare'"),
        (["run", "--method", "middle"], "unknown method in the store 'middle'; known: far, near"),
        (["run", "--protocol", "standart"], "unknown protocol 'standart'"),
        (["run", "--data", "partworld_pairs", "--data-option", "split=val"], "those of other pairs alone"),
        (["run", "--out", "run/config-correspondence.yaml"], "expected a folder that can be written"),
    ],
)
def test_a_mistake_is_one_line(
    run: Path, words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", *words]) == 2
    printed = capsys.readouterr()
    assert told in printed.err
    assert printed.err.count("\n") == 1


def test_pictures_that_are_not_there_are_no_obstacle(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A data set whose images were moved: the numbers are there, and the page says what is not drawn."""

    class Moved(PartWorldPairs):
        def image(self, image_id: str) -> None:
            raise ImageError(f"expected {image_id}, found no file")

    chapter = read_chapter([StoredRun(run)], Moved(num_pairs=9), PRESETS)
    write_report([chapter], Path("out"), num_figures=1)
    page = Path("out/report.md").read_text()
    assert page.count("is not drawn: expected test-") == 2
