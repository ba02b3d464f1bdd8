"""Ablation reports of run folders, numbers against scoring each run alone."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from diffcorr.backbones import UNetBackbone
from diffcorr.cli import main
from diffcorr.correspondence.flops import count_pieces
from diffcorr.data.partworld import PartWorldPairs, PartWorldSegmentation
from diffcorr.errors import DataError, UnknownNameError
from diffcorr.metrics import compare_masks, compare_points, score_masks, score_points
from diffcorr.runs.ablation_cost import costs
from diffcorr.runs.ablation_runs import Sweep, find_runs
from diffcorr.runs.ablation_scores import Ablation
from diffcorr.stores import MaskStore, PredictionStore
from diffcorr.types import PointPrediction
from tests.helpers.tiny_models import save_tiny_pipeline

PAIRS = PartWorldPairs("val", num_pairs=6).pairs
SHIFTS = {0.02: 7.0, 0.055: 2.0, 0.1: 30.0}
Make = Callable[..., Path]


def found(shift: float, pairs: int = 6) -> list[PointPrediction]:
    """The truth, the n-th keypoint of a pair moved n times."""
    return [
        PointPrediction(pair.pair_id, name, "q", x + shift * n, y, 0.5)
        for pair in PAIRS[:pairs]
        for n, (name, (x, y)) in enumerate(zip(pair.keypoints, pair.target_points, strict=True))
    ]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Writes a run folder as ``eval.py -m`` leaves it."""
    monkeypatch.chdir(tmp_path)

    def write(
        name: str,
        fit: dict,
        shift: float | None,
        *,
        overrides: list[str] | None = None,
        pairs: int = 6,
        timings: list[dict] | None = None,
        about: dict | None = None,
        **changed: object,
    ) -> Path:
        folder = Path("sweep") / name
        folder.mkdir(parents=True)
        data = {"_target_": "diffcorr.data.partworld.PartWorldPairs"}
        data |= {"split": "val", "kind": "same", "num_pairs": 6}
        fit = {"sigma": 0.055, "rounds": 2, "layers": [6], **fit}
        config = {
            "task": "correspondence",
            "seed": 0,
            "output_dir": str(folder),
            "backbone": {"name": "toy"},
            "data": data,
            "protocol": {"name": "standard"},
            "trainer": {"precision": "32-true"},
            "method": {"name": "packed", "fit": fit, "transfer": {"layers": fit["layers"]}},
            **changed,
        }
        told = {"device": "cpu", "git": {"commit": "abc"}, "seed": config["seed"], **(about or {})}
        told["overrides"] = (
            [f"method.fit.{k}={v}" for k, v in fit.items()] if overrides is None else overrides
        )
        (folder / "config-correspondence.yaml").write_text(json.dumps(config))
        (folder / "run-correspondence.json").write_text(json.dumps(told))
        if shift is not None:
            with PredictionStore(folder / "predictions") as kept:
                kept.add("packed", int(str(config["seed"])), found(shift, pairs), f"h{shift}")
        if timings:
            (folder / "timings.json").write_text(json.dumps(timings))
        return folder

    return write


@pytest.fixture
def sweep(make: Make) -> Path:
    for sigma, shift in SHIFTS.items():
        make(f"sigma={sigma}", {"sigma": sigma}, shift)
    return Path("sweep")


def test_scores_and_differences_are_those_of_the_runs_alone(sweep: Path) -> None:
    ablation = Ablation(Sweep(find_runs([sweep])))
    assert ablation.sweep.keys == ["method.fit.sigma"]
    assert [setting.values for setting in ablation.settings] == [(0.02,), (0.055,), (0.1,)]
    assert ablation.reference is ablation.settings[1]  # the preset's own value
    scores = {sigma: score_points(found(shift), PAIRS, "standard") for sigma, shift in SHIFTS.items()}
    for setting in ablation.settings:
        (sigma,) = setting.values
        assert ablation.estimate(setting).value == pytest.approx(
            100 * scores[sigma].compute()["pck@0.10"].item()
        )
        alone = compare_points(scores[sigma], scores[0.055]).times(100)
        lead = ablation.difference(setting)
        if sigma == 0.055:
            assert lead is None
        else:
            assert lead is not None
            assert (lead.difference, lead.low, lead.high) == pytest.approx(
                (alone.difference, alone.low, alone.high)
            )
    # the interval of a mean over settings, by hand: pairs drawn, then the mean of the settings' means
    both = ablation.settings[:2]
    shares = np.mean([scores[s].per_pair()[1][:, 0].numpy() for s in (0.02, 0.055)], 0)
    rng = np.random.default_rng(1)
    drawn = rng.choice(shares, (20_000, len(shares))).mean(1)
    together = ablation.estimate(both)
    assert together.value == pytest.approx(100 * shares.mean())
    limits = 100 * np.quantile(drawn, [0.025, 0.975])
    assert (together.low, together.high) == pytest.approx(tuple(limits), abs=1.5)
    other = Ablation(
        Sweep(find_runs([sweep])),
        metric="pck@0.05",
        protocol="per_point",
        reference={"method.fit.sigma": "0.1"},
    )
    assert other.reference is other.settings[2]
    per_point = score_points(found(7.0), PAIRS, "per_point").compute()
    assert other.estimate(other.settings[0]).value == pytest.approx(100 * per_point["pck@0.05"].item())


def test_what_is_swept_and_what_differs_besides(make: Make) -> None:
    make("a", {"layers": [5]}, 1.0)
    make("b", {"layers": [6]}, 2.0)
    make("c", {"layers": [5, 6], "rounds": 3}, 3.0, overrides=["method.fit.layers=[5,6]"])
    make("d", {"layers": [7]}, 4.0, about={"git": {"commit": "other"}})
    sweep = Sweep(find_runs(["sweep"]))
    # `transfer.layers` follows `fit.layers` in all runs; rounds differ in one that no command line changed
    assert set(sweep.keys) == {"method.fit.layers", "method.fit.rounds"}
    sweep = Sweep(find_runs(["sweep"]), ["method.fit.layers"])
    assert sweep.in_order("method.fit.layers") == [[5], [6], [7], [5, 6]]
    flags = {folder.name: found for folder, found in sweep.flags.items()}
    assert flags == {
        "a": [],
        "b": [],
        "c": ["method.fit.rounds is 3, of most 2"],
        "d": ["git.commit is other, of most abc"],
    }
    with pytest.raises(UnknownNameError, match=r"unknown key of these runs 'method.fit.layer'"):
        Sweep(sweep.runs, ["method.fit.layer"])


def test_a_swept_option_explains_all_that_it_brings(make: Make) -> None:
    for name, fit in (("packed", {"rounds": 4}), ("other", {"rounds": 2, "sigma": 0.2})):
        fit = {"sigma": 0.055, "rounds": 2, **fit}
        method = {"name": name, "fit": fit, "transfer": {}}
        make(name, {}, None, overrides=[f"method={name}"], method=method)
    sweep = Sweep(find_runs(["sweep"]))
    assert sweep.keys == ["method"]
    assert not any(sweep.flags.values())
    for path in Path("sweep").rglob("run-*.json"):  # as older runs, which do not tell what was changed
        path.unlink()
    sweep = Sweep(find_runs(["sweep"]))
    assert sweep.keys == ["method.name"]
    assert not any(sweep.flags.values())


def test_seeds_are_averaged_not_compared(make: Make) -> None:
    for seed, shift in ((0, 2.0), (1, 6.0)):
        for sigma in (0.055, 0.1):
            overrides = [f"seed={seed}", f"method.fit.sigma={sigma}"]
            make(f"{seed}-{sigma}", {"sigma": sigma}, shift + sigma, overrides=overrides, seed=seed)
    ablation = Ablation(Sweep(find_runs(["sweep"])))
    assert [setting.values for setting in ablation.settings] == [(0.055,), (0.1,)]
    alone = [score_points(found(s + 0.1), PAIRS).compute()["pck@0.10"].item() for s in (2.0, 6.0)]
    assert ablation.estimate(ablation.settings[1]).value == pytest.approx(100 * np.mean(alone))


def test_a_sweep_that_goes_on_and_runs_that_failed(sweep: Path, make: Make) -> None:
    make("sigma=0.2", {"sigma": 0.2}, 5.0, pairs=4)
    make("sigma=0.3", {"sigma": 0.3}, None)
    failed = make("sigma=0.4", {"sigma": 0.4}, 5.0, pairs=5)
    row = {"task": "correspondence", "stage": "predict", "item": PAIRS[5].pair_id, "reason": "no image"}
    (failed / "failures.jsonl").write_text(json.dumps(row) + "\n")
    ablation = Ablation(Sweep(find_runs([sweep])))
    states = [state for setting in ablation.settings for state in setting.states]
    assert states == ["sigma=0.2: 4 of 6 pairs", "sigma=0.3: 0 of 6 pairs"]
    # where one run lacks a pair that could not be read, all are compared on the others
    for setting in ablation.done:
        shift = {**SHIFTS, 0.4: 5.0}[setting.values[0]]
        alone = score_points(found(shift), PAIRS[:5]).compute()["pck@0.10"].item()
        assert ablation.estimate(setting).value == pytest.approx(100 * alone)
        assert ablation.estimate(setting).num_items == 5


def test_a_fit_that_was_taken_over_costs_what_it_took_elsewhere(make: Make) -> None:
    def row(stage: str, key: str, items: int, total: int, seconds: float) -> dict:
        one = {"stage": stage, "method": "packed", "seed": 0, "key": key, "items": items, "total": total}
        return {**one, "seconds": 9 * seconds, "cpu_seconds": seconds}

    # the first was interrupted after 6 of 10 prompts; the second found them all
    first = [row("fit", "f", 6, 10, 12.0), row("fit", "f", 4, 10, 8.0), row("predict", "p", 6, 6, 3.0)]
    make("a", {"sigma": 0.1}, 1.0, timings=first)
    make("b", {"sigma": 0.2}, 2.0, timings=[row("fit", "f", 0, 20, 0.0), row("predict", "q", 3, 6, 3.0)])
    make("c", {"sigma": 0.3}, 2.0, about={"device": "H200"}, timings=first)
    make("d", {"sigma": 0.4}, 2.0)
    found_costs = costs(Ablation(Sweep(find_runs(["sweep"]))), flops=False)
    told = [(one.fit_seconds, one.read_seconds, one.seconds) for one in found_costs.values()]
    assert told == [(20.0, 3.0, 23.0), (40.0, 6.0, 46.0), (180.0, 27.0, 207.0), (None, None, None)]


def test_flops_are_those_of_the_settings(make: Make, tmp_path: Path) -> None:
    method = {
        "_target_": "diffcorr.correspondence.PromptFit",
        "name": "packed",
        "fit": {"_target_": "x", "steps": 1, "rounds": 1, "layers": [3], "bank_size": 0},
        "transfer": {"_target_": "x", "layers": [3], "crops": "grid", "num_crops": 4, "trunk": "null"},
    }
    toy = str(save_tiny_pipeline(tmp_path / "toy"))
    backbone = {"_target_": "diffcorr.backbones.UNetBackbone.from_pretrained", "path_or_name": toy}
    make("known", {}, 1.0, backbone={**backbone, "name": "toy"}, method=method, overrides=[])
    ablation = Ablation(Sweep(find_runs(["sweep"])))
    (one,) = costs(ablation).values()
    queries = {query.id for pair in PAIRS for query in pair.queries()}
    each = count_pieces(UNetBackbone.from_pretrained(toy), [3])
    passes = len(queries) * (each.early + each.backward + each.encode) + 6 * 4 * (each.early + each.encode)
    assert one.tflop == pytest.approx(passes / 1e12)
    strange = {"_target_": "os.system", "name": "toy"}  # a file on disk does not choose what runs
    make("unknown", {}, 1.0, backbone=strange, method=method, overrides=[])
    assert [c.tflop for c in costs(Ablation(Sweep(find_runs(["sweep/unknown"])))).values()] == [None]


def test_masks_are_compared_over_images(make: Make) -> None:
    data = PartWorldSegmentation("val", 4)
    node = {"_target_": "diffcorr.data.partworld.PartWorldSegmentation", "split": "val", "num_images": 4}
    scores = {}
    for tau in (0.5, 1.0):
        method = {"name": "diffseg", "tau": tau}
        about = {"data": node, "task": "segmentation", "protocol": {"name": "per_image"}, "method": method}
        folder = make(f"tau={tau}", {}, None, overrides=[f"method.tau={tau}"], **about)
        store = MaskStore(folder / "masks")
        masks = {}
        for index in range(4):
            sample = data[index]
            masks[sample["image_id"]] = (sample["label"] >= 3 + 4 * tau).astype(np.int64)
            store.add(sample["image_id"], "diffseg", masks[sample["image_id"]], 0, "h")
        scores[tau] = score_masks(masks, data, "per_image")
    ablation = Ablation(Sweep(find_runs(["sweep"])), reference={"method.tau": "1.0"})
    (first, second) = ablation.settings
    assert ablation.metric == "miou"
    assert ablation.estimate(second).value == pytest.approx(100 * scores[1.0].compute()["miou"].item())
    alone = compare_masks(scores[0.5], scores[1.0], num_resamples=2000).times(100)
    lead = ablation.difference(first)
    assert lead is not None
    assert (lead.difference, lead.low, lead.high) == pytest.approx((alone.difference, alone.low, alone.high))


# the command


def test_the_command(sweep: Path, make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    make("sigma=0.2", {"sigma": 0.2}, 5.0, pairs=4)
    before = {path: path.read_bytes() for path in sweep.rglob("*") if path.is_file()}
    assert main(["report", "ablation", "sweep", "--no-flops"]) == 0
    names = ["report.md", "report.html", "ablation.csv", "ablation.json"]
    assert capsys.readouterr().out.splitlines() == [str(sweep / "report" / name) for name in names]
    assert all(path.read_bytes() == content for path, content in before.items())
    rows = list(csv.DictReader((sweep / "report/ablation.csv").read_text().splitlines()))
    assert [row["method.fit.sigma"] for row in rows] == ["0.02", "0.055", "0.1", "0.2"]
    expected = 100 * score_points(found(7.0), PAIRS).compute()["pck@0.10"].item()
    assert float(rows[0]["value"]) == round(expected, 3)
    assert (rows[3]["value"], rows[3]["unfinished"]) == ("", "sigma=0.2: 4 of 6 pairs")
    assert json.loads((sweep / "report/ablation.json").read_text())["settings"][0]["folders"] == "sigma=0.02"
    page = (sweep / "report/report.md").read_text()
    for words in (
        "4 runs of 4 settings, 3 of them complete",
        "protocol `standard`",
        "| 0.055 | ",
        "| reference |",
    ):
        assert words in page
    assert [path.name for path in (sweep / "report/figures").iterdir()] == ["over-sigma.png"]
    # again, with its own report in the folder
    assert main(["report", "ablation", "sweep", "--no-flops", "--out", "there"]) == 0
    assert Path("there/ablation.csv").read_bytes() == (sweep / "report/ablation.csv").read_bytes()


def test_two_keys_make_a_grid(make: Make) -> None:
    for number, (sigma, rounds) in enumerate((s, r) for s in (0.02, 0.055) for r in (1, 2)):
        make(f"{number}", {"sigma": sigma, "rounds": rounds}, 2.0 + number)
    assert main(["report", "ablation", "sweep", "--no-flops"]) == 0
    drawn = {path.name for path in Path("sweep/report/figures").iterdir()}
    assert drawn == {"over-sigma.png", "over-rounds.png", "grid-sigma-rounds.png"}
    page = Path("sweep/report/report.md").read_text()
    assert "| sigma | rounds=1 | rounds=2 |" in page


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["nowhere"], "expected runs of a sweep in 'nowhere', found none"),
        (["sweep", "--key", "method.fit.sgma"], "unknown key of these runs 'method.fit.sgma'"),
        (["sweep", "--protocol", "standart"], "unknown protocol 'standart'"),
        (["sweep", "--metric", "pck@0.3"], "unknown metric 'pck@0.3'"),
        (["sweep", "--reference", "method.fit.sigma=3"], "expected a setting with {'method.fit.sigma': '3'}"),
        (["sweep", "--out", "sweep/sigma=0.1/config-correspondence.yaml"], "expected a folder"),
    ],
)
def test_a_mistake_is_one_line(
    sweep: Path, words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", "ablation", *words]) == 2
    printed = capsys.readouterr()
    assert told in printed.err
    assert printed.err.count("\n") == 1


def test_runs_of_several_tasks_are_refused(sweep: Path, make: Make) -> None:
    make("other", {}, None, task="samples")
    with pytest.raises(DataError, match="found correspondence, samples"):
        Ablation(Sweep(find_runs([sweep])))
