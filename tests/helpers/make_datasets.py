"""Tiny data sets in the true layouts on disk, written without any code of the package."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from scipy.io import savemat

FLAGS = {"viewpoint_variation": 1, "scale_variation": 0, "truncation": 2, "occlusion": 3}
PARTS = ["back", "beak", "left eye"]


def picture(path: Path, size: tuple[int, int], mode: str = "RGB", orientation: int = 1) -> Path:
    """A noisy picture whose stored (width, height) is ``size``; lossless where the suffix allows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = sum(str(path.name).encode())
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).convert(mode).save(path, exif=exif)
    return path


def spair_pair(
    folder: Path, number: int, category: str, names: tuple[str, str], split: str = "test", **changes: Any
) -> Path:
    """One annotation, of images that `spair` writes unless changed."""
    record = {
        "pair_id": number,
        "filename": f"{number:06d}-{names[0]}-{names[1]}:{category}",
        "src_imname": f"{names[0]}.jpg",
        "trg_imname": f"{names[1]}.jpg",
        "src_imsize": [31, 21, 3],
        "trg_imsize": [20, 30, 3],
        "src_bndbox": [1, 2, 30, 20],
        "trg_bndbox": [3, 4, 13, 29],
        "category": category,
        "src_kps": [[5, 6], [30, 20], [7, 8]],
        "trg_kps": [[4, 5], [11, 28], [9, 9]],
        "kps_ids": ["0", "3", "11"],
        "mirror": 0,
        **FLAGS,
        **changes,
    }
    path = folder / "PairAnnotation" / split / f"{record['filename']}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({key: value for key, value in record.items() if value is not None}))
    return path


def spair(parent: Path, layout: bool = True) -> Path:
    """Four test pairs of cat and dog and one trn pair; grey, CMYK and turned pictures."""
    folder = parent / "SPair-71k"
    for category in ("cat", "dog"):
        images = folder / "JPEGImages" / category
        picture(images / "a.jpg", (31, 21), "L")
        # stored lying, 30 x 20; upright it is 20 x 30, which is what the annotation means
        picture(images / "b.jpg", (30, 20), "CMYK" if category == "dog" else "RGB", orientation=6)
    names = []
    for number, (category, images) in enumerate(
        [("cat", ("a", "b")), ("cat", ("b", "a")), ("dog", ("a", "b")), ("dog", ("b", "a"))], 1
    ):
        swap = (
            {
                **{f"src_{key}": value for key, value in _side("trg").items()},
                **{f"trg_{key}": value for key, value in _side("src").items()},
            }
            if images == ("b", "a")
            else {}
        )
        names.append(spair_pair(folder, number, category, images, **swap).name.removesuffix(".json"))
    trn = spair_pair(folder, 9, "dog", ("a", "b"), "trn").name.removesuffix(".json")
    if layout:
        for name, lists in (("large", {"test": names, "trn": [trn]}), ("small", {"test": names[1:3]})):
            for split, rows in lists.items():
                path = folder / "Layout" / name / f"{split}.txt"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text("\n".join(rows) + "\n")
    return folder


def _side(side: str) -> dict[str, Any]:
    return {
        "src": {"imsize": [31, 21, 3], "bndbox": [1, 2, 30, 20], "kps": [[5, 6], [30, 20], [7, 8]]},
        "trg": {"imsize": [20, 30, 3], "bndbox": [3, 4, 13, 29], "kps": [[4, 5], [11, 28], [9, 9]]},
    }[side]


WILLOW_HEADER = ["imageA", "imageB", *(f"{a}{k}" for a in ("XA", "YA", "XB", "YB") for k in range(1, 11))]


def willow_row(a: str, b: str, a_points: list[list[float]], b_points: list[list[float]]) -> list[Any]:
    """A line of the list: x of ten points, then y, padded with -1."""
    row: list[Any] = [a, b]
    for points in (a_points, b_points):
        padded = points + [[-1, -1]] * (10 - len(points))
        row += [x for x, _ in padded] + [y for _, y in padded]
    return row


def pf_willow(parent: Path, nested: bool = False) -> Path:
    """Four lines: two good pairs, one that shares no keypoint, one with a single keypoint.

    ``nested`` is the layout with PF-dataset below the list, else categories lie beside it.
    """
    folder = parent / ("pf-willow" if nested else "PF-WILLOW")
    images = folder / "PF-dataset" if nested else folder
    picture(images / "car(S)" / "60_0000.png", (41, 23))
    picture(images / "car(S)" / "60_0001.png", (24, 42), "L")
    picture(images / "duck(S)" / "60_0000.png", (33, 35))
    picture(images / "duck(S)" / "60_0001.png", (35, 33))
    x = "PF-dataset/{}/60_000{}.png".format
    one, two = [[1.5, 2.5], [40, 20], [8, 9]], [[3, 4], [5, 40.5], [23, 9]]
    rows = [
        WILLOW_HEADER,
        willow_row(x("car(S)", 0), x("car(S)", 1), one, two),
        willow_row(x("car(S)", 1), x("car(S)", 0), two, [*one[:2], [-1, -1]]),
        willow_row(x("duck(S)", 0), x("duck(S)", 1), [[-1, -1], [2, 2]], [[3, 3]]),
        willow_row(x("duck(S)", 1), x("duck(S)", 0), [[3, 3]], [[6, 7]]),
    ]
    write_csv(folder / "test_pairs.csv", rows)
    return folder


def write_csv(path: Path, rows: list[list[Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


def pf_pascal(parent: Path, flat: bool = False) -> Path:
    """Two test pairs of which one shares no keypoint, and a trn list with a mirrored copy.

    ``flat`` keeps lists, images and annotations in one folder.
    """
    folder = parent / "pf-pascal"
    inner = folder if flat else folder / "PF-dataset-PASCAL"
    nan = float("nan")
    for stem, size, kps, bbox in (
        ("2008_1", (51, 37), [[1.25, 2], [nan, nan], [50, 36]], [1, 2, 50, 37]),
        ("2008_2", (38, 52), [[10, 20], [11, 21], [30, 45]], [5, 6, 35, 50]),
        ("2008_3", (30, 30), [[nan, nan], [3, 4], [nan, nan]], [1, 1, 9, 9]),
    ):
        picture(inner / "JPEGImages" / f"{stem}.jpg", size)
        path = inner / "Annotations" / "cat" / f"{stem}.mat"
        path.parent.mkdir(parents=True, exist_ok=True)
        savemat(path, {"kps": np.array(kps), "bbox": np.array([bbox], float), "class": "cat"})
    image = "PF-dataset-PASCAL/JPEGImages/2008_{}.jpg".format
    head = ["source_image", "target_image", "class"]
    write_csv(folder / "test_pairs.csv", [head, [image(1), image(2), 8], [image(1), image(3), 8]])
    rows = [[*head, "flip"], [image(1), image(2), 8, 0], [image(1), image(2), 8, 1]]
    write_csv(folder / "trn_pairs.csv", rows)
    return folder


def cub(parent: Path) -> Path:
    """Two classes; class 1 has three test images, of which the third shares no part with the second."""
    folder = parent / "CUB_200_2011"
    images = [  # class, is_train, box, visible parts
        (1, 0, "2.0 3.0 20.0 10.0", {1: (5, 6), 2: (7, 8), 3: (9, 9)}),
        (1, 0, "1.0 1.0 10.0 30.0", {1: (4, 4.5), 2: (6, 20)}),
        (1, 0, "0.0 0.0 30.0 20.0", {3: (11, 12)}),
        (1, 1, "0.0 0.0 30.0 20.0", {3: (11, 12)}),
        (2, 0, "4.0 5.0 20.0 10.0", {1: (5, 6)}),
        (2, 0, "4.0 5.0 20.0 10.0", {1: (15, 16)}),
    ]
    classes = {1: "001.Albatross", 2: "002.Gull"}
    lines: dict[str, list[str]] = {}
    for number, (label, is_train, bbox, parts) in enumerate(images, 1):
        name = f"{classes[label]}/bird_{number}.jpg"
        picture(folder / "images" / name, (33 + number, 34), "L" if number == 2 else "RGB")
        lines.setdefault("images.txt", []).append(f"{number} {name}")
        lines.setdefault("train_test_split.txt", []).append(f"{number} {is_train}")
        lines.setdefault("image_class_labels.txt", []).append(f"{number} {label}")
        lines.setdefault("bounding_boxes.txt", []).append(f"{number} {bbox}")
        for part in range(1, len(PARTS) + 1):
            x, y = parts.get(part, (0, 0))
            row = f"{number} {part} {float(x)} {float(y)} {int(part in parts)}"
            lines.setdefault("parts/part_locs.txt", []).append(row)
    lines["classes.txt"] = [f"{number} {name}" for number, name in classes.items()]
    lines["parts/parts.txt"] = [f"{number} {name}" for number, name in enumerate(PARTS, 1)]
    for name, rows in lines.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("\n".join(rows) + "\n")
    return folder


def own_pairs(parent: Path, kind: str = "csv") -> Path:
    """The same two pairs as CSV or JSON: one with boxes and names, one with neither and a single point."""
    folder = parent / "mine"
    picture(folder / "a.jpg", (31, 21), "L")
    picture(folder / "sub" / "b.jpg", (30, 20), "CMYK", orientation=6)
    if kind == "csv":
        head = ["source", "target", "source_x", "source_y", "target_x", "target_y"]
        more = ["keypoint", "category", "source_box", "target_box"]
        boxes = ["1 2 30 20", "3 4 13 29"]
        rows = [
            [*head, *more],
            ["a.jpg", "sub/b.jpg", 5, 6, 4, 5, "ear", "cat", *boxes],
            ["a.jpg", "sub/b.jpg", 30, 20, 11, 28, "tail", "cat", *boxes],
            ["a.jpg", "sub/b.jpg", 7, 8, -1, -1, "paw", "cat", *boxes],
            ["sub/b.jpg", "a.jpg", 4.5, 5.5, 6, 7, "", "dog", "", ""],
        ]
        write_csv(folder / "pairs.csv", rows)
    else:
        pairs = [
            {
                "source": "a.jpg",
                "target": "sub/b.jpg",
                "source_points": [[5, 6], [30, 20], [7, 8]],
                "target_points": [[4, 5], [11, 28], None],
                "keypoints": ["ear", "tail", "paw"],
                "category": "cat",
                "source_box": [1, 2, 30, 20],
                "target_box": [3, 4, 13, 29],
            },
            {
                "source": "sub/b.jpg",
                "target": "a.jpg",
                "source_points": [[4.5, 5.5]],
                "target_points": [[6, 7]],
                "category": "dog",
            },
        ]
        (folder / "pairs.json").write_text(json.dumps(pairs))
    return folder
