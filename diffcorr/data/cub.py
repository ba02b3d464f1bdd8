"""CUB-200-2011: birds of 200 species with 15 parts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path

from diffcorr.data.download import Download
from diffcorr.data.pair_files import About, Candidate, PairFiles, View, box, find_folder, numbers
from diffcorr.data.tables import read_pairs_of_words
from diffcorr.errors import DataError, UnknownNameError
from diffcorr.types import Point

FOLDERS = ("CUB_200_2011", "CUB_200_2011/CUB_200_2011")
INDEX = ("images.txt", "train_test_split.txt", "image_class_labels.txt", "bounding_boxes.txt")
PARTS = "parts/part_locs.txt"


class CUB(PairFiles):
    """Caltech-UCSD Birds-200-2011 (Wah et al. 2011, Caltech Technical Report CNS-TR-2011-001).

    Format: text files, a line an image or part: images.txt, train_test_split.txt, image_class_labels.txt,
    bounding_boxes.txt (x, y, width, height), parts/part_locs.txt (x, y, visible), images/. Image ids are
    CUB's numbers, keypoints the names of the parts with underscores; only visible parts count. Pairs are all
    unordered pairs of two images of one class, the lower number as source; pairs that share no visible part
    are left out and counted. The published correspondence evaluation is the default here: classes 1 to 3 of
    the test split, 1,248 pairs. The splits are CUB's own. Licence: non-commercial research.

    Args:
        root: as `PairFiles`.
        split: train or test.
        categories: classes by number or name (None: all 200, more than 80,000 test pairs).
        num_pairs: as `PairFiles`.
        read_sizes: as `PairFiles`; sizes are read from the headers of the images.

    Raises:
        DataError, ImageError, UnknownNameError: as `PairFiles`.
    """

    name = "cub"
    splits = ("train", "test")
    about = About(
        title="CUB-200-2011",
        source="https://data.caltech.edu/records/65de6-vp158 (CUB_200_2011.tgz); unpack it",
        licence="non-commercial research and education",
        size="1.1 GB",
        layout=f"CUB_200_2011/{{{','.join(INDEX)},{PARTS},images}}",
        citation="Wah et al. 2011, The Caltech-UCSD Birds-200-2011 Dataset, CNS-TR-2011-001",
        num_images=11_788,
        num_pairs={"test": 1248},
        downloads=(
            Download(
                "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
                md5="97eceeb196236b17998738112f37df78",
            ),
        ),
    )

    def __init__(
        self,
        root: str | Path,
        split: str = "test",
        categories: Sequence[str | int] | str | None = (1, 2, 3),
        num_pairs: int | None = None,
        read_sizes: bool = True,
    ) -> None:
        names = [categories] if isinstance(categories, str) else categories
        wanted = None if names is None else [str(c) for c in names]
        super().__init__(root, split, wanted, num_pairs, read_sizes)

    @classmethod
    def available(cls, root: str | Path) -> list[str]:
        """Both splits, where the index is there."""
        find_folder(Path(root), FOLDERS, [*INDEX, PARTS, "images"], cls.about.title)
        return list(cls.splits)

    @classmethod
    def for_check(cls, root: str | Path, split: str) -> CUB:
        """Those of the classes 1 to 3 that a subset has; its other classes count with their images."""
        folder = find_folder(Path(root), FOLDERS, [*INDEX], cls.about.title)
        there = {label for _, label in read_pairs_of_words(folder / INDEX[2])}
        return cls(root, split, [c for c in ("1", "2", "3") if c in there], read_sizes=False)

    def annotations(self) -> Iterator[tuple[str, str, Point]]:
        """(image id, part, point) of every visible part of every image, whatever its split and class."""
        for image_id, parts in self._parts.items():
            for part, point in parts.items():
                yield image_id, part, point

    def _candidates(self) -> Iterator[Candidate]:
        folder = find_folder(self.root, FOLDERS, [*INDEX, PARTS, "images"], self.about.title)
        images, is_train, labels, boxes = (dict(read_pairs_of_words(folder / name)) for name in INDEX)
        for name, table in zip(INDEX[1:], (is_train, labels, boxes), strict=True):
            if missing := next((i for i in images if i not in table), None):
                raise DataError(
                    f"expected image {missing} in {folder / name}, found no such line; restore it"
                )
        self.files = {i: folder / "images" / name for i, name in images.items()}
        self._boxes, self._boxes_file = boxes, folder / "bounding_boxes.txt"
        self._parts = _read_parts(folder, images)
        wanted = "1" if self.split == "train" else "0"
        classes: dict[int, list[str]] = {}
        for image_id in sorted(images, key=_number):
            if is_train[image_id] == wanted:
                classes.setdefault(_number(labels[image_id]), []).append(image_id)
        self._names = _class_names(folder, sorted({_number(labels[image_id]) for image_id in images}))
        for label, members in sorted(classes.items()):
            for a, b in combinations(members, 2):
                yield Candidate(f"{int(a):05d}-{int(b):05d}", self._names[label], (a, b))

    def _of(self, candidates: list[Candidate], categories: Sequence[str] | str | None) -> list[Candidate]:
        if categories is None:
            return candidates
        # numbers stand for names such as 001.Black_footed_Albatross; a class may be there and have no pair
        numbers_too = {str(label): name for label, name in self._names.items()}
        wanted = {numbers_too.get(c.lstrip("0"), c) for c in categories}
        if unknown := sorted(wanted - set(self._names.values())):
            raise UnknownNameError("category of cub", unknown[0], self._names.values())
        return [c for c in candidates if c.category in wanted]

    def _views(self, candidate: Candidate) -> tuple[View, View, Mapping[str, object]]:
        source, target = (View(i, self._parts[i], self._box(i)) for i in candidate.row)
        return source, target, {}

    def _box(self, image_id: str) -> tuple[float, float, float, float]:
        where = f"the box of image {image_id} in {self._boxes_file}"
        x, y, width, height = numbers(self._boxes[image_id].split(), 4, where)
        return box((x, y, x + width, y + height), where)


def _number(text: str) -> int:
    if not text.isdecimal():
        raise DataError(
            f"expected image and class numbers in {', '.join(INDEX)}, found {text!r}; restore them"
        )
    return int(text)


def _class_names(folder: Path, labels: Sequence[int]) -> dict[int, str]:
    names: dict[int, str] = {}
    if (folder / "classes.txt").is_file():
        names = {_number(label): name for label, name in read_pairs_of_words(folder / "classes.txt")}
    return {label: names.get(label, f"{label:03d}") for label in labels}


def _read_parts(folder: Path, images: Mapping[str, str]) -> dict[str, dict[str, Point]]:
    """Visible parts by image, each a point (x, y) in pixels."""
    names: dict[str, str] = {}
    if (folder / "parts" / "parts.txt").is_file():
        names = {k: v.replace(" ", "_") for k, v in read_pairs_of_words(folder / "parts" / "parts.txt")}
    parts: dict[str, dict[str, Point]] = {image_id: {} for image_id in images}
    for image_id, rest in read_pairs_of_words(folder / PARTS):
        part, *values = rest.split()
        x, y, visible = numbers(
            values, 3, f"x, y, visible of image {image_id} part {part} in {folder / PARTS}"
        )
        if image_id not in parts:
            raise DataError(
                f"expected images of images.txt in {folder / PARTS}, found {image_id}; restore it"
            )
        if visible:
            parts[image_id][names.get(part, part)] = (x, y)
    return parts
