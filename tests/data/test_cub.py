"""CUB-200-2011: a made one against values worked out by hand, the real one against its text files."""

import json
from itertools import combinations
from pathlib import Path

import pytest
from PIL import Image

from diffcorr.config import compose
from diffcorr.data.check import check
from diffcorr.data.cub import CUB
from diffcorr.errors import DataError, ImageError, UnknownNameError
from diffcorr.runs.correspondence import evaluate_correspondence
from diffcorr.types import PairDataset
from tests.helpers.make_datasets import cub
from tests.helpers.tiny_models import save_tiny_pipeline

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "CUB_200_2011"
needs_real = pytest.mark.skipif(not REAL.is_dir(), reason=f"no CUB-200-2011 at {REAL}")


def test_made_data_by_hand(tmp_path: Path) -> None:
    data = CUB(cub(tmp_path), categories=None)
    assert isinstance(data, PairDataset)
    first, second, third = data.pairs
    assert [p.pair_id for p in data.pairs] == ["00001-00002", "00001-00003", "00005-00006"]
    assert (first.category, first.source_id, first.target_id) == ("001.Albatross", "1", "2")
    assert first.keypoints == ("back", "beak")
    assert (first.source_points, first.target_points) == (((5, 6), (7, 8)), ((4, 4.5), (6, 20)))
    assert (first.source_bbox, first.target_bbox) == ((2, 3, 22, 13), (1, 1, 11, 31))
    assert (first.source_size, first.target_size) == ((34, 34), (35, 34))
    assert second.keypoints == ("left_eye",)
    assert third.category == "002.Gull"
    assert dict(data.skipped) == {"no keypoint visible in both images": 1}
    assert data.image("2").shape == (34, 35, 3)
    assert CUB(tmp_path, "train", categories=None).pairs == []


def test_classes_by_number_and_by_name(tmp_path: Path) -> None:
    cub(tmp_path)
    for wanted in ([2], ["2"], ["002"], ["002.Gull"], "002.Gull"):
        assert [p.pair_id for p in CUB(tmp_path, categories=wanted).pairs] == ["00005-00006"]
    assert [p.pair_id for p in CUB(tmp_path, categories=[1, 2], num_pairs=2).pairs] == [
        "00001-00002",
        "00005-00006",
    ]
    with pytest.raises(UnknownNameError, match="unknown category of cub"):
        CUB(tmp_path, categories=[3])
    with pytest.raises(UnknownNameError, match="known: train, test"):
        CUB(tmp_path, "val")


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("bounding_boxes.txt", "1 2 3 20 10\n", "expected image 2 in"),
        (
            "bounding_boxes.txt",
            "".join(f"{i} nan 3 20 10\n" for i in range(1, 7)),
            "4 finite numbers as the box of",
        ),
        ("image_class_labels.txt", "".join(f"{i} one\n" for i in range(1, 7)), "class numbers"),
        ("parts/part_locs.txt", "1 1 5 6\n", "x, y, visible of image 1 part 1"),
        ("parts/part_locs.txt", "99 1 5 6 1\n", "found 99"),
        ("images.txt", "1\n", "two or more words in line 1"),
    ],
)
def test_a_wrong_index_is_named_in_one_line(tmp_path: Path, name: str, text: str, told: str) -> None:
    folder = cub(tmp_path)
    (folder / name).write_text(text)
    with pytest.raises(DataError, match=told) as caught:
        CUB(folder, categories=None)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named_in_one_line(tmp_path: Path) -> None:
    folder = cub(tmp_path)
    (folder / "images/001.Albatross/bird_2.jpg").unlink()
    with pytest.raises(ImageError, match=r"bird_2\.jpg"):
        CUB(folder, categories=None)
    (folder / "parts/part_locs.txt").unlink()
    with pytest.raises(DataError, match=r"parts/part_locs\.txt"):
        CUB(folder, categories=None)


def slow_pairs() -> list[tuple[int, int, dict[int, tuple]]]:
    """The published pairs, from the lines of the files: numbers, and part -> source and target place."""

    def table(name: str) -> list[list[str]]:
        return [line.split() for line in (REAL / name).read_text().splitlines()]

    test = [int(i) for i, is_train in table("train_test_split.txt") if is_train == "0"]
    label = {int(i): int(c) for i, c in table("image_class_labels.txt")}
    seen = {
        (int(i), int(part)): (float(x), float(y))
        for i, part, x, y, visible in table("parts/part_locs.txt")
        if visible == "1"
    }
    found = []
    for a, b in combinations(sorted(test), 2):
        both = {k: (seen[a, k], seen[b, k]) for k in range(1, 16) if (a, k) in seen and (b, k) in seen}
        if label[a] == label[b] and label[a] in (1, 2, 3) and both:
            found.append((a, b, both))
    return found


@needs_real
def test_the_published_pairs_are_all_there() -> None:
    data = CUB(REAL)
    slow = sorted(slow_pairs())
    assert len(data.pairs) == len(slow) == 1248
    ours = {(int(p.source_id), int(p.target_id)): p for p in data.pairs}
    assert sorted(ours) == [(a, b) for a, b, _ in slow]
    for a, b, both in slow:
        places = zip(ours[a, b].source_points, ours[a, b].target_points, strict=True)
        assert sorted(places) == sorted(both.values())
    boxes = dict(line.split(" ", 1) for line in (REAL / "bounding_boxes.txt").read_text().splitlines())
    for pair in data.pairs[::50]:
        x, y, width, height = map(float, boxes[pair.target_id].split())
        assert pair.target_bbox == (x, y, x + width, y + height)
        with Image.open(data.files[pair.target_id]) as picture:
            assert pair.target_size == picture.size


@needs_real
def test_the_real_subset_is_sound() -> None:
    report = check(CUB, REAL)
    assert report.sound
    assert not report.complete
    assert report.pairs["test"] == 1248
    assert "178 of 11,788 images, a sound subset" in report.lines()[0]


@needs_real
@pytest.mark.parametrize("num_pairs", [60, pytest.param(1248, marks=pytest.mark.slow)])
def test_chance_and_copied_positions_score_as_computed_by_hand(tmp_path: Path, num_pairs: int) -> None:
    """The entry point on the real pairs; PCK at the longer side of the box, a plain mean over pairs."""
    toy = save_tiny_pipeline(tmp_path / "toy")
    words = [
        *(
            "data=cub",
            f"data.root={REAL}",
            f"data.num_pairs={num_pairs}",
            "method=copy_position",
            "baselines=[chance]",
        ),
        *("backbone=local", f"backbone.path_or_name={toy}", "backbone.name=toy", "trainer.accelerator=cpu"),
        *("+trainer.enable_progress_bar=false", f"output_dir={tmp_path / 'run'}", "num_figures=1"),
    ]
    evaluate_correspondence(compose("eval", words))
    records = json.loads((tmp_path / "run/metrics.json").read_text())
    overall = {r["method"]: r for r in records if "group" not in r and r["metric"] == "pck@0.10"}
    assert {r["dataset"] for r in records} == {"cub"}
    chosen = {p.pair_id for p in CUB(REAL, num_pairs=num_pairs).pairs}
    boxes = dict(line.split(" ", 1) for line in (REAL / "bounding_boxes.txt").read_text().splitlines())
    names = dict(line.split() for line in (REAL / "images.txt").read_text().splitlines())
    shares = []
    for a, b, both in slow_pairs():
        if f"{a:05d}-{b:05d}" not in chosen:
            continue
        sizes = [Image.open(REAL / "images" / names[str(i)]).size for i in (a, b)]
        limit = 0.1 * max(map(float, boxes[str(b)].split()[2:]))
        hits = [
            (x / sizes[0][0] * sizes[1][0] - u) ** 2 + (y / sizes[0][1] * sizes[1][1] - v) ** 2 <= limit**2
            for (x, y), (u, v) in both.values()
        ]
        shares.append(sum(hits) / len(hits))
    assert len(shares) == num_pairs
    assert overall["copy_position"]["value"] == pytest.approx(100 * sum(shares) / num_pairs)
    assert overall["copy_position"]["num_items"] == num_pairs
    assert 0 <= overall["chance"]["value"] < 15
