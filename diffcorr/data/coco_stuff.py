"""COCO-Stuff with its 27 superclasses, on the curated list of unsupervised segmentation."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from diffcorr.data.labels import IGNORED
from diffcorr.data.segmentation_files import LabelledFile, SegmentationAbout, SegmentationFiles, find_layout
from diffcorr.errors import DataError

# The class hierarchy of Caesar et al. (CVPR 2018). Things are numbered superclass by superclass, 0 to 90;
# eleven of them have no segmentation in COCO and never occur. Stuff is numbered by the alphabet, 91 to 181.
THINGS = {
    "electronic": range(71, 77),
    "appliance": range(77, 83),
    "food-thing": range(51, 61),
    "furniture-thing": range(61, 71),
    "indoor": range(83, 91),
    "kitchen": range(43, 51),
    "accessory": range(25, 33),
    "animal": range(15, 25),
    "outdoor": range(9, 15),
    "person": range(1),
    "sports": range(33, 43),
    "vehicle": range(1, 9),
}
STUFF = {
    "ceiling": "ceiling-other ceiling-tile",
    "floor": "carpet floor-marble floor-other floor-stone floor-tile floor-wood",
    "food-stuff": "food-other fruit salad vegetable",
    "furniture-stuff": (
        "cabinet counter cupboard desk-stuff door-stuff furniture-other light mirror-stuff shelf stairs table"
    ),
    "raw-material": "cardboard metal paper plastic",
    "textile": "banner blanket cloth clothes curtain mat napkin pillow rug textile-other towel",
    "wall": "wall-brick wall-concrete wall-other wall-panel wall-stone wall-tile wall-wood",
    "window": "window-blind window-other",
    "building": "bridge building-other house roof skyscraper tent",
    "ground": ("dirt gravel ground-other mud pavement platform playingfield railroad road sand snow"),
    "plant": "branch bush flower grass leaves moss plant-other straw tree",
    "sky": "clouds sky-other",
    "solid": "hill mountain rock solid-other stone wood",
    "structural": "cage fence net railing structural-other",
    "water": "fog river sea water-other waterdrops",
}
FIRST_STUFF = 91
UNLABELLED = 255


def coarse_of_fine() -> dict[int, int]:
    """The superclass 0..26 of every stored id 0..181, and -1 for 255."""
    table = {fine: coarse for coarse, ids in enumerate(THINGS.values()) for fine in ids}
    superclass = {
        name: len(THINGS) + place for place, names in enumerate(STUFF.values()) for name in names.split()
    }
    table |= {FIRST_STUFF + place: superclass[name] for place, name in enumerate(sorted(superclass))}
    return {**dict(sorted(table.items())), UNLABELLED: IGNORED}


LISTS = ("curated/{split}2017/Coco164kFull_Stuff_Coarse_7.txt", "Coco164kFull_Stuff_Coarse_7.txt")
LAYOUTS = (
    ("images/{split}2017", "annotations/{split}2017"),
    ("{split}2017", "annotation_{split}2017"),
    ("{split}2017", "annotations/{split}2017"),
    ("images/{split}2017", "stuffthingmaps/{split}2017"),
    ("{split}2017", "stuffthingmaps/{split}2017"),
)
FOLDERS = ("cocostuff", "coco", "COCO-Stuff", "coco_data")


class COCOStuff(SegmentationFiles):
    """COCO-Stuff-27 (Caesar et al. 2018, arXiv 1612.03716; list of Ji et al. 2019 and Cho et al. 2021).

    Format: JPEG images of COCO 2017 and the PNG label maps of ``stuffthingmaps_trainval2017.zip``, ids 0 to
    181 (those of the data set's ``labels.txt`` less one), 255 unlabelled. Classes: 12 superclasses of things
    and 15 of stuff, from the published hierarchy. Other files of labels do not fit and are refused: the
    stuff-only maps count otherwise and have an id 183.

    The published evaluations use 2,175 images of val2017, named in ``Coco164kFull_Stuff_Coarse_7.txt``,
    a stem a line. It comes with the projects of PiCIE, STEGO and DiffSeg and is looked for in the data set's
    folder.

    Licence: images: Flickr terms of use; annotations: CC BY 4.0.

    Args:
        root: as `SegmentationFiles`.
        split: val or train.
        num_images: as `SegmentationFiles`.
        square: as `SegmentationFiles`.
        image_list: path of the list; None looks for the curated one; ``all`` takes every labelled image.
        must_exist: as `SegmentationFiles`.

    Raises:
        DataError, ImageError, UnknownNameError: as `SegmentationFiles`; no list, or one that is none.
    """

    name = "coco_stuff"
    classes = (*THINGS, *STUFF)
    table = coarse_of_fine()
    about = SegmentationAbout(
        title="COCO-Stuff-27",
        source=(
            "images: http://images.cocodataset.org/zips/val2017.zip; labels: stuffthingmaps_trainval2017.zip "
            "of https://github.com/nightrome/cocostuff; list: Coco164kFull_Stuff_Coarse_7.txt of "
            "https://github.com/janghyuncho/PiCIE (curated/val2017)"
        ),
        licence="images: Flickr terms of use; annotations: CC BY 4.0",
        size="1 GB of val images, 659 MB of labels (18 GB of train images)",
        layout=(
            "images/val2017 + annotations/val2017, or val2017 + annotation_val2017; the list in "
            "curated/val2017 or beside the images"
        ),
        citation="Caesar et al. 2018, COCO-Stuff: Thing and Stuff Classes in Context",
        num_labelled={"val": 2_175},
    )

    def __init__(
        self,
        root: str | Path,
        split: str = "val",
        num_images: int | None = None,
        square: int | None = None,
        image_list: str | None = None,
        must_exist: bool = True,
    ) -> None:
        self.image_list = image_list
        super().__init__(root, split, num_images, square, must_exist)

    @classmethod
    def available(cls, root: str | Path) -> list[str]:
        """The splits that have a folder of images and one of labels."""
        found = [split for split in cls.splits if _has_layout(Path(root).expanduser(), split)]
        if not found:
            _layout(Path(root).expanduser(), "val")  # says what was looked for
        return found

    @classmethod
    def for_check(cls, root: str | Path, split: str) -> COCOStuff:
        """The curated list where the folder has it, else every labelled image."""
        base = _layout(Path(root).expanduser(), split)[0]
        if _curated(base, split):
            return cls(root, split, must_exist=False)
        data = cls(root, split, image_list="all", must_exist=False)
        data.notes.append(
            f"no {LISTS[1]} for {split} in {base}: the published evaluation needs it, "
            "here (for val) or as data.image_list=<path>"
        )
        return data

    def _index(self) -> Iterator[LabelledFile]:
        base, images, labels = _layout(self.root, self.split)
        for stem in self._stems(base, labels):
            yield LabelledFile(stem, images / f"{stem}.jpg", labels / f"{stem}.png")

    def _stems(self, base: Path, labels: Path) -> list[str]:
        if self.image_list == "all":
            return sorted(path.stem for path in labels.glob("*.png"))
        path = Path(self.image_list).expanduser() if self.image_list else _curated(base, self.split)
        if path is None or not path.is_file():
            raise DataError(
                f"expected the list of {self.split} images {path or base / LISTS[1]}, found none: put it "
                "there, or set data.image_list to its path, or to all"
            )
        # a list may come with blank lines, line ends of another system, and suffixes
        stems = [line.strip().removesuffix(".jpg") for line in path.read_text().splitlines() if line.strip()]
        for wrong in [stem for stem in stems if not stem.isdecimal()][:1]:
            raise DataError(
                f"expected an image a line in {path}, such as 000000000139, found {wrong[:60]!r}: restore it"
            )
        return list(dict.fromkeys(stems))


def _layout(root: Path, split: str) -> tuple[Path, Path, Path]:
    layouts = [(images.format(split=split), labels.format(split=split)) for images, labels in LAYOUTS]
    return find_layout(root, FOLDERS, layouts, COCOStuff.about.title)


def _has_layout(root: Path, split: str) -> bool:
    try:
        return bool(_layout(root, split))
    except DataError:
        return False


def _curated(base: Path, split: str) -> Path | None:
    """The list in the data set's folder; one that lies beside the images is that of val."""
    names = LISTS if split == "val" else LISTS[:1]
    found = [base / name.format(split=split) for name in names]
    return next((path for path in found if path.is_file()), None)
