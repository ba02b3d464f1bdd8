"""`diffcorr data`: made data sets are sound, and every kind of damage is found and told."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from diffcorr.cli import main
from diffcorr.config import compose, instantiate
from diffcorr.data.check import check
from diffcorr.data.pair_files import PairFiles
from diffcorr.data.spair import SPair
from diffcorr.runs.correspondence import evaluate_correspondence
from tests.helpers.make_datasets import cub, own_pairs, pf_pascal, pf_willow, picture, spair, spair_pair
from tests.helpers.tiny_models import save_tiny_pipeline

MAKERS: dict[str, Callable[[Path], Path]] = {
    "spair": spair,
    "pf_willow": pf_willow,
    "pf_pascal": pf_pascal,
    "cub": cub,
    "own_pairs": own_pairs,
}
# images of the index, test pairs that are left after those without a common keypoint or an extent
NUMBERS = {"spair": (4, 4), "pf_willow": (4, 2), "pf_pascal": (3, 1), "cub": (6, 3), "own_pairs": (2, 2)}
CUB_CLASSES = ["data.categories=[1,2]"]


@pytest.fixture(scope="module")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_pipeline(tmp_path_factory.mktemp("toy"))


@pytest.mark.parametrize("name", MAKERS)
def test_a_made_data_set_is_evaluated_from_its_config(name: str, toy: Path, tmp_path: Path) -> None:
    """The entry point; copied positions are scored again here from the pairs alone."""
    root = MAKERS[name](tmp_path)
    words = [
        *(f"data={name}", f"data.root={root}", "method=copy_position", "baselines=[chance]", "num_figures=1"),
        *("backbone=local", f"backbone.path_or_name={toy}", "backbone.name=toy", "trainer.accelerator=cpu"),
        *("+trainer.enable_progress_bar=false", f"output_dir={tmp_path / 'run'}"),
        *(CUB_CLASSES if name == "cub" else []),
    ]
    config = compose("eval", words)
    evaluate_correspondence(config)
    records = json.loads((tmp_path / "run/metrics.json").read_text())
    (record,) = [
        r
        for r in records
        if r["method"] == "copy_position" and "group" not in r and r["metric"] == "pck@0.10"
    ]
    pairs = instantiate(config.data).pairs
    assert record["num_items"] == len(pairs) == NUMBERS[name][1]
    shares = []
    for pair in pairs:
        limit = 0.1 * max(
            pair.target_bbox[2] - pair.target_bbox[0], pair.target_bbox[3] - pair.target_bbox[1]
        )
        (w, h), (u, v) = pair.source_size, pair.target_size
        hits = [
            ((x / w * u - a) ** 2 + (y / h * v - b) ** 2) ** 0.5 <= limit
            for (x, y), (a, b) in zip(pair.source_points, pair.target_points, strict=True)
        ]
        shares.append(sum(hits) / len(hits))
    assert record["value"] == pytest.approx(100 * sum(shares) / len(shares))
    assert len(list((tmp_path / "run/figures").rglob("*.png"))) >= 1


@pytest.mark.parametrize("name", MAKERS)
def test_a_made_data_set_is_a_sound_subset(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = MAKERS[name](tmp_path)
    assert main(["data", "check", name, str(root), "--json"]) == 0
    printed = capsys.readouterr()
    report = json.loads(printed.out)
    assert printed.err == ""
    assert report["sound"]
    assert report["problems"] == []
    images, pairs = NUMBERS[name]
    assert (report["num_images"], report["pairs"]["test"]) == (images, pairs)
    assert main(["data", "check", name, str(root)]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    official = {"spair": "4 of 1,800 images, a sound subset", "cub": "6 of 11,788 images, a sound subset"}
    assert official.get(name, "images") in first


def problems(root: Path, dataset: type[PairFiles] = SPair) -> str:
    report = check(dataset, root)
    assert not report.sound
    assert not any("\n" in line for line in report.lines())
    return " | ".join(report.problems)


def test_damage_is_found(tmp_path: Path) -> None:
    folder = spair(tmp_path)
    assert "2 images are turned upright" in check(SPair, folder).notes[0]
    image = folder / "JPEGImages/cat/a.jpg"
    whole = image.read_bytes()
    image.unlink()
    assert "1 images are missing, the first: " in problems(folder)
    image.write_bytes(whole[: len(whole) // 2])  # the header is whole, the picture is not
    assert "1 images cannot be read" in problems(folder)
    picture(image, (21, 31))
    told = problems(folder)
    assert "1 images have another size than their annotation" in told
    assert "(21x31, annotated as 31x21)" in told
    assert "1 keypoints lie outside of their image, the first: 3 of" in told
    picture(image, (31, 21), "L")
    spair_pair(folder, 1, "cat", ("a", "b"), src_kps=[[31.5, 6], [30, 20], [7, 8]])
    assert "at (31.5, 6) of 31x21" in problems(folder)
    path = spair_pair(folder, 1, "cat", ("a", "b"))
    path.write_text("{")
    assert path.name in problems(folder)


def test_more_than_the_official_numbers_is_no_official_list(tmp_path: Path) -> None:
    class Small(SPair):
        about = type(SPair.about)(**{**vars(SPair.about), "num_images": 3, "num_pairs": {"test": 3}})

    told = problems(spair(tmp_path), Small)
    assert "test: expected at most 3 pairs, found 4" in told
    assert "at most 3 images, found 4" in told

    class Exact(SPair):
        about = type(SPair.about)(
            **{**vars(SPair.about), "num_images": 4, "num_pairs": {"test": 4, "trn": 1}}
        )

    assert check(Exact, tmp_path).complete


def test_the_command_fails_with_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = spair(tmp_path)
    (folder / "JPEGImages/cat/a.jpg").unlink()
    for words, told in (
        (
            ["check", "spair", str(folder)],
            "found 1 problem(s): mend them or get the data again from https://",
        ),
        (["check", "spair", str(tmp_path / "nowhere")], "found no such folder"),
        (["check", "cub", str(folder)], "expected images.txt and"),
        (["check", "spare", str(folder)], "own_pairs, pascal_voc, pf_pascal, pf_willow, spair"),
        (["unpack", str(folder), str(tmp_path)], "found no file"),
    ):
        assert main(["data", *words]) == (2 if words[0] == "unpack" else 1)
        printed = capsys.readouterr().err
        assert printed.startswith("error: ")
        assert told in printed
        assert printed.count("\n") == 1


def test_list_names_every_config_and_where_to_get_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "list", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    configs = Path(__file__).parents[2] / "configs/data"
    assert sorted(rows) == sorted(path.stem for path in configs.glob("*.yaml"))
    for name in MAKERS:
        assert all(rows[name][key] for key in ("source", "licence", "size", "layout"))
    assert rows["spair"]["pairs"] == {"trn": 53_340, "val": 5_384, "test": 12_234}
    assert sum(rows["spair"]["pairs"].values()) == 70_958  # the number in the paper's abstract
    assert main(["data", "list"]) == 0
    assert "complete: 1,800 images, 53,340 trn pairs" in capsys.readouterr().out
