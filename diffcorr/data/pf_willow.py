"""PF-Willow: pairs of ten sub-categories with ten keypoints each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from diffcorr.data.download import Download
from diffcorr.data.pair_files import About, Candidate, PairFiles, View, find_folder, numbers, present
from diffcorr.data.tables import read_rows
from diffcorr.errors import DataError
from diffcorr.types import Point

NUM_KEYPOINTS = 10
NUM_COLUMNS = 2 + 4 * NUM_KEYPOINTS
FOLDERS = ("PF-WILLOW", "pf-willow", "PF-dataset", "pf-willow/PF-dataset", "PF-WILLOW/PF-dataset")


class PFWillow(PairFiles):
    """PF-Willow (Ham et al. 2016, arXiv 1511.05065).

    Format: ``test_pairs.csv``, a line a pair: two image names, then x of the ten source keypoints, their y,
    and the same of the target. Of an image name the last two parts count, ``<category>/<file>``; image ids
    are these without suffix. There is one split. Keypoints bear their place in the list, 0 to 9; (-1, -1)
    is padding.

    There are no boxes. A box is the extent of all keypoints of its image, which makes the threshold of
    `standard` the one that is usual for this set: the longer side of the target keypoints' extent. (One
    published program takes the minimum over padding as well, and so arrives at about the largest
    coordinate, a far more lenient threshold.) Licence: research.

    Args:
        root: as `PairFiles`.
        split: test.
        categories: as `PairFiles`.
        num_pairs: as `PairFiles`.
        read_sizes: as `PairFiles`.

    Raises:
        DataError, ImageError, UnknownNameError: as `PairFiles`.
    """

    name = "pf_willow"
    about = About(
        title="PF-Willow",
        source=(
            "images: https://www.di.ens.fr/willow/research/proposalflow/ (PF-dataset.zip); "
            "test_pairs.csv: from the SD4Match or CATs project"
        ),
        licence="research",
        size="a few MB",
        layout="PF-WILLOW/{test_pairs.csv,<category>} or pf-willow/{test_pairs.csv,PF-dataset/<category>}",
        citation="Ham et al. 2016, Proposal Flow",
        num_images=100,
        num_pairs={"test": 900},
        downloads=(
            Download(
                "https://www.di.ens.fr/willow/research/proposalflow/dataset/PF-dataset.zip", "pf-willow"
            ),
            Download("https://www.robots.ox.ac.uk/~xinghui/sd4match/test_pairs.csv", "pf-willow"),
        ),
    )

    @classmethod
    def available(cls, root: str | Path) -> list[str]:
        """The one split, where its list is there."""
        find_folder(Path(root), FOLDERS, ["test_pairs.csv"], cls.about.title)
        return ["test"]

    def _candidates(self) -> Iterator[Candidate]:
        folder = find_folder(self.root, FOLDERS, ["test_pairs.csv"], self.about.title)
        places: dict[tuple[str, int], Point] = {}
        path = folder / "test_pairs.csv"
        for number, cells in read_rows(path):
            if len(cells) != NUM_COLUMNS:
                raise DataError(
                    f"expected {NUM_COLUMNS} columns in {path} (2 images, 10 x, 10 y, 10 x, 10 y), found "
                    f"{len(cells)} in line {number}; restore it"
                )
            if number == 1 and not _is_number(cells[2]):
                continue  # the header
            where = f"line {number} of {path}"
            source, target = (self._file(folder, name, where) for name in cells[:2])
            points = [_points(values, f"keypoints in {where}") for values in (cells[2:22], cells[22:])]
            names = [
                # a query is (image, keypoint): should a list have another place for it, it is another one
                str(k) if places.setdefault((source, k), point) == point else f"{k}@{point[0]:g},{point[1]:g}"
                for k, point in enumerate(points[0])
            ]
            views = [
                View(image_id, {name: xy for name, xy in zip(names, side, strict=True) if present(*xy)})
                for image_id, side in zip((source, target), points, strict=True)
            ]
            category = source.partition("/")[0]
            yield Candidate(f"{category}-{Path(source).name}-{Path(target).name}", category, views)

    def _file(self, folder: Path, name: str, where: str) -> str:
        """Image id; the first part of a name differs between the published lists, the last two are alike."""
        parts = PurePosixPath(name).parts
        if len(parts) < 2 or ".." in parts:
            raise DataError(
                f"expected an image as <folder>/<category>/<file> in {where}, found {name!r}; restore it"
            )
        category, file_name = parts[-2:]
        inner = folder / "PF-dataset"
        base = inner if (inner / category).is_dir() else folder
        image_id = f"{category}/{Path(file_name).stem}"
        self.files.setdefault(image_id, base / category / file_name)
        return image_id

    def _views(self, candidate: Candidate) -> tuple[View, View, Mapping[str, object]]:
        source, target = candidate.row
        return source, target, {}


def _points(values: list[str], where: str) -> list[Point]:
    flat = numbers(values, 2 * NUM_KEYPOINTS, where)
    return list(zip(flat[:NUM_KEYPOINTS], flat[NUM_KEYPOINTS:], strict=True))


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
