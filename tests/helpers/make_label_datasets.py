"""Tiny segmentation data sets in the true layouts on disk, written without any code of the package.

Every set has pictures of odd sizes; one is grey and one CMYK where the format allows, one is stored lying
(30 x 20) with an EXIF flag that turns it upright (20 x 30).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from tests.helpers.make_datasets import picture

LYING, UPRIGHT = (30, 20), (20, 30)


def label_map(path: Path, ids: np.ndarray, palette: bool = False) -> np.ndarray:
    """Ids as an 8-bit PNG, with colours where the data set has them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(ids.astype(np.uint8), mode="P" if palette else "L")
    if palette:
        # the colours of neighbours in the palette are far apart: who reads colours sees other numbers
        image.putpalette([value * 83 % 256 for value in range(768)])
    image.save(path)
    return ids


def stripes(size: tuple[int, int], *ids: int) -> np.ndarray:
    """(H, W): upright stripes of the ids, the first twice as wide as the others."""
    edges = np.linspace(0, size[0], len(ids) + 2)[2:-1].round().astype(int)
    columns = np.searchsorted(edges, np.arange(size[0]), side="right")
    return np.tile(np.array(ids)[columns], (size[1], 1))


COCO_STEMS = ("000000000139", "000000000285", "000000000632")
COCO_LIST = "Coco164kFull_Stuff_Coarse_7.txt"
COCO_LAYOUTS = {
    "picie": ("coco/images/val2017", "coco/annotations/val2017", "coco/curated/val2017"),
    "stego": ("cocostuff/images/val2017", "cocostuff/annotations/val2017", "cocostuff/curated/val2017"),
    "diffseg": ("val2017", "annotation_val2017", "."),
    "diffcut": ("coco/val2017", "coco/annotations/val2017", "coco"),
    "unzipped": ("images/val2017", "stuffthingmaps/val2017", "."),
}


def coco_stuff(parent: Path, layout: str = "picie", curated: bool = True) -> Path:
    """Four labelled images, three of them on the list.

    The first has things at both ends of their ids, one of the eleven that COCO dropped (11), stuff at both
    ends, and unlabelled pixels; the second lies, and so does its label map; the third is CMYK.
    """
    images, labels, lists = (parent / folder for folder in COCO_LAYOUTS[layout])
    picture(images / f"{COCO_STEMS[0]}.jpg", (31, 21), "L")
    label_map(labels / f"{COCO_STEMS[0]}.png", stripes((31, 21), 0, 90, 11, 91, 181, 255))
    picture(images / f"{COCO_STEMS[1]}.jpg", LYING, orientation=6)
    label_map(labels / f"{COCO_STEMS[1]}.png", stripes(LYING, 105, 156))
    picture(images / f"{COCO_STEMS[2]}.jpg", (23, 17), "CMYK")
    label_map(labels / f"{COCO_STEMS[2]}.png", stripes((23, 17), 119, 255))
    picture(images / "000000000724.jpg", (9, 8))
    label_map(labels / "000000000724.png", stripes((9, 8), 12))
    if curated:
        lists.mkdir(parents=True, exist_ok=True)
        (lists / COCO_LIST).write_bytes("\r\n".join([*reversed(COCO_STEMS), ""]).encode())
    return parent


def cityscapes(parent: Path, labels: bool = True) -> Path:
    """Two cities in val, one image in train; classes at both ends, void and the 8-bit -1."""
    folder = parent / "cityscapes"
    for split, city, number, size, ids in (
        ("val", "frankfurt", 0, (41, 23), (7, 33, 0, 255)),
        ("val", "lindau", 1, (24, 42), (11, 6)),
        ("train", "aachen", 2, (33, 35), (26,)),
    ):
        stem = f"{city}_{number:06d}_000019"
        picture(folder / f"leftImg8bit/{split}/{city}/{stem}_leftImg8bit.png", size)
        if labels:
            path = folder / f"gtFine/{split}/{city}/{stem}_gtFine_labelIds.png"
            label_map(path, stripes(size, *ids))
            # its neighbours in the folder, which are not read
            label_map(path.with_name(f"{stem}_gtFine_labelTrainIds.png"), stripes(size, 18))
            label_map(path.with_name(f"{stem}_gtFine_instanceIds.png"), stripes(size, 99))
    return folder


def pascal_voc(parent: Path) -> Path:
    """Two val images and one of train, palette label maps with void; the second lies, its label does not."""
    folder = parent / "VOCdevkit" / "VOC2012"
    names = {"2007_000033": ((31, 21), (0, 20, 255, 1)), "2007_000042": (UPRIGHT, (15, 0))}
    for name, (size, ids) in {**names, "2007_000032": ((9, 9), (3,))}.items():
        if size == UPRIGHT:
            picture(folder / f"JPEGImages/{name}.jpg", LYING, orientation=6)
        else:
            picture(folder / f"JPEGImages/{name}.jpg", size, "L")
        label_map(folder / f"SegmentationClass/{name}.png", stripes(size, *ids), palette=True)
    lists = folder / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    for split, rows in (("val", [*names]), ("train", ["2007_000032"]), ("trainval", ["2007_000032", *names])):
        (lists / f"{split}.txt").write_text("\n".join(rows) + "\n")
    return folder


def ade20k(parent: Path) -> Path:
    """Two validation images and one for training; ids at both ends and 0, which is everything else."""
    folder = parent / "ADEChallengeData2016"
    for split, number, size, mode, ids in (
        ("validation", 1, (31, 21), "RGB", (1, 150, 0)),
        ("validation", 2, (22, 33), "CMYK", (3,)),
        ("training", 1, (20, 20), "L", (13, 4)),
    ):
        stem = f"ADE_{'val' if split == 'validation' else 'train'}_{number:08d}"
        picture(folder / f"images/{split}/{stem}.jpg", size, mode)
        label_map(folder / f"annotations/{split}/{stem}.png", stripes(size, *ids))
    return folder


def domainnet(parent: Path) -> Path:
    """Three styles of which one has more images, a hidden file, a list, and an image of a single colour."""
    folder = parent / "domainnet"
    for place in ("clipart/cat/c1.jpg", "clipart/cat/c2.jpg", "clipart/dog/c3.jpg", "sketch/cat/s1.png"):
        picture(folder / place, (25, 31), "L" if "sketch" in place else "RGB")
    picture(folder / "quickdraw/cat/q1.jpg", LYING, "CMYK", orientation=6)
    Image.new("RGB", (16, 12), (200, 10, 10)).save(folder / "quickdraw/cat/plain.png")
    (folder / "sketch_train.txt").write_text("sketch/cat/s1.png 0\n")
    (folder / "clipart/cat/.c1.jpg").write_bytes(b"not an image")
    return folder
