"""PF-Pascal: pairs of PASCAL images of 20 categories, annotated image by image in MATLAB files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from scipy.io import loadmat

from diffcorr.data.download import Download
from diffcorr.data.pair_files import About, Candidate, PairFiles, View, box, find_folder, present
from diffcorr.data.tables import read_records
from diffcorr.errors import DataError

CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train"),
    "tvmonitor",
)
"""In the order of the numbers 1 to 20 of the lists."""
FOLDERS = ("pf-pascal", "PF-PASCAL", "PF-dataset-PASCAL", "pf-pascal/PF-dataset-PASCAL")
INNER = "PF-dataset-PASCAL"


class PFPascal(PairFiles):
    """PF-Pascal (Ham et al. 2018, arXiv 1703.07144).

    Format: ``<split>_pairs.csv`` with columns source_image, target_image, class (1 to 20) and, in lists for
    training, flip; ``Annotations/<class>/<image>.mat`` with kps (n, 2) and bbox (1, 4). Lines with flip 1
    are mirrored copies of others for training: they are left out and counted. Image ids are
    ``<class>/<image>``, keypoints bear their row; rows of NaN are not visible. Coordinates are MATLAB's, as
    stored. The splits are the usual ones (Han et al. 2017, SCNet). Licence: research, images under the
    terms of PASCAL VOC and Flickr.

    The usual threshold of this set is the longer side of the target image, not of the box.

    Args:
        root: as `PairFiles`.
        split: trn, val or test.
        categories: as `PairFiles`.
        num_pairs: as `PairFiles`.
        read_sizes: as `PairFiles`.

    Raises:
        DataError, ImageError, UnknownNameError: as `PairFiles`.
    """

    name = "pf_pascal"
    splits = ("trn", "val", "test")
    about = About(
        title="PF-Pascal",
        source=(
            "images and annotations: https://www.di.ens.fr/willow/research/proposalflow/ "
            "(PF-dataset-PASCAL.zip); lists: pf-pascal_image_pairs.zip of the SD4Match project"
        ),
        licence="research; images under the terms of PASCAL VOC and Flickr",
        size="about 0.1 GB",
        layout="pf-pascal/{{trn,val,test}_pairs.csv,PF-dataset-PASCAL/{JPEGImages,Annotations/<class>}}",
        citation="Ham et al. 2018, Proposal Flow: Semantic Correspondences from Object Proposals",
        num_pairs={"val": 308, "test": 299},
        downloads=(
            Download(
                "https://www.di.ens.fr/willow/research/proposalflow/dataset/PF-dataset-PASCAL.zip",
                "pf-pascal",
            ),
            Download(
                "https://www.robots.ox.ac.uk/~xinghui/sd4match/pf-pascal_image_pairs.zip",
                "pf-pascal",
                flat=True,
            ),
        ),
    )

    @classmethod
    def available(cls, root: str | Path) -> list[str]:
        """The splits whose lists are there."""
        places = [Path(root).expanduser() / folder for folder in (".", *FOLDERS)]
        found = [[s for s in cls.splits if (place / f"{s}_pairs.csv").is_file()] for place in places]
        if not any(found):
            find_folder(Path(root), FOLDERS, ["test_pairs.csv"], cls.about.title)
        return next((splits for splits in found if splits), [])

    def _candidates(self) -> Iterator[Candidate]:
        lists = find_folder(self.root, FOLDERS, [f"{self.split}_pairs.csv"], self.about.title)
        self.folder = find_folder(lists, (INNER, ".."), ["JPEGImages", "Annotations"], self.about.title)
        self._views_of: dict[str, View] = {}
        path = lists / f"{self.split}_pairs.csv"
        for number, record in read_records(path, ["source_image", "target_image", "class"]):
            where = f"line {number} of {path}"
            if record.get("flip", "0") not in ("0", "0.0", ""):
                self.skipped["mirrored copy for training"] += 1
                continue
            category = _category(record["class"], where)
            names = [PurePosixPath(record[key]).name for key in ("source_image", "target_image")]
            if not all(names):
                raise DataError(f"expected two image names in {where}, found {record}; restore it")
            pair_id = "-".join([category, *(Path(name).stem for name in names)])
            yield Candidate(pair_id, category, names)

    def _views(self, candidate: Candidate) -> tuple[View, View, Mapping[str, object]]:
        source, target = (self._view(candidate.category, name) for name in candidate.row)
        return source, target, {}

    def _view(self, category: str, file_name: str) -> View:
        stem = Path(file_name).stem
        image_id = f"{category}/{stem}"
        if image_id not in self._views_of:
            path = self.folder / "Annotations" / category / f"{stem}.mat"
            kps, bbox = read_annotation(path)
            points = {str(k): (x, y) for k, (x, y) in enumerate(kps) if x == x and present(x, y)}
            self._views_of[image_id] = View(image_id, points, box(bbox, f"bbox of {path}"))
            images = self.folder / "JPEGImages"
            nested = images / category / file_name
            self.files[image_id] = nested if nested.is_file() else images / file_name
        return self._views_of[image_id]


def read_annotation(path: Path) -> tuple[list[tuple[float, float]], Sequence[float]]:
    """Keypoints, (NaN, NaN) where not visible, and the four numbers of the box of a ``.mat`` file.

    SciPy reads numbers from it and runs nothing.

    Raises:
        DataError: it is missing, cut off, or holds other arrays.
    """
    try:
        found = loadmat(str(path), variable_names=("kps", "bbox"))
        kps = np.asarray(found["kps"], dtype=np.float64)
        bbox = np.asarray(found["bbox"], dtype=np.float64).ravel().tolist()
    except FileNotFoundError:
        raise DataError(f"expected an annotation, found no file at {path}; restore it") from None
    except KeyError as error:
        raise DataError(f"expected arrays kps and bbox in {path}, found no {error}; restore it") from None
    except Exception as error:  # SciPy raises what its parser happens upon: no list of types is complete
        told = str(error).split("\n")[0] or type(error).__name__
        raise DataError(f"expected a MATLAB file at {path}, found {told}; restore it") from None
    if kps.ndim != 2 or kps.shape[1] != 2:
        raise DataError(f"expected kps as (n, 2) in {path}, found {kps.shape}; restore it")
    kps[~np.isfinite(kps).all(1)] = np.nan
    return [(float(x), float(y)) for x, y in kps], bbox


def _category(text: str, where: str) -> str:
    if text in CLASSES:
        return text
    try:
        number = int(float(text))
    except (ValueError, OverflowError):
        number = 0
    if not 1 <= number <= len(CLASSES):
        raise DataError(f"expected a class from 1 to {len(CLASSES)} in {where}, found {text!r}; restore it")
    return CLASSES[number - 1]
