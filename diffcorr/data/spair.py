"""SPair-71k: pairs of PASCAL images of 18 categories, with difficulty flags."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from diffcorr.data.download import Download
from diffcorr.data.pair_files import About, Candidate, PairFiles, View, box, find_folder, numbers, present
from diffcorr.data.tables import read_json
from diffcorr.errors import DataError, UnknownNameError
from diffcorr.types import Point, Size

FLAGS = ("viewpoint_variation", "scale_variation", "truncation", "occlusion")
LAYOUTS = ("large", "small")
FOLDERS = ("SPair-71k", "SPair71k", "spair-71k")


class SPair(PairFiles):
    """SPair-71k (Min et al. 2019, arXiv 1908.10543).

    Format: one JSON a pair in ``PairAnnotation/<split>``, images in ``JPEGImages/<category>``. Image ids are
    ``<category>/<name>``, since one picture may be annotated for two categories; keypoints bear SPair's ids.
    ``Pair.tags`` has the flags: viewpoint_variation 0, 1, 2 (easy, medium, hard), scale_variation 0, 1, 2,
    truncation and occlusion 0 none, 1 source, 2 target, 3 both. The splits are the published ones.
    Licence: research, images under the terms of PASCAL VOC and Flickr.

    Args:
        root: as `PairFiles`.
        split: trn, val or test.
        layout: ``large`` (all pairs) or ``small``, the lists in ``Layout/<layout>``; without such lists
            ``large`` is every annotation there is.
        categories: as `PairFiles`.
        num_pairs: as `PairFiles`.
        read_sizes: as `PairFiles`; the annotations give the sizes.

    Raises:
        DataError, ImageError, UnknownNameError: as `PairFiles`.
    """

    name = "spair"
    splits = ("trn", "val", "test")
    about = About(
        title="SPair-71k",
        source="https://cvlab.postech.ac.kr/research/SPair-71k/ (SPair-71k.tar.gz); unpack it",
        licence="research; images under the terms of PASCAL VOC 2012 and Flickr",
        size="about 0.2 GB",
        layout="SPair-71k/{JPEGImages/<category>,PairAnnotation/<split>,Layout/{large,small}}",
        citation="Min et al. 2019, SPair-71k: A Large-scale Benchmark for Semantic Correspondence",
        num_images=1800,
        num_pairs={"trn": 53_340, "val": 5_384, "test": 12_234},
        downloads=(Download("https://cvlab.postech.ac.kr/research/SPair-71k/data/SPair-71k.tar.gz"),),
    )

    def __init__(
        self,
        root: str | Path,
        split: str = "test",
        layout: str = "large",
        categories: Sequence[str] | str | None = None,
        num_pairs: int | None = None,
        read_sizes: bool = True,
    ) -> None:
        if layout not in LAYOUTS:
            raise UnknownNameError("layout of spair", layout, LAYOUTS)
        self.layout = layout
        self._stored: dict[str, Size] = {}
        super().__init__(root, split, categories, num_pairs, read_sizes)

    @classmethod
    def available(cls, root: str | Path) -> list[str]:
        """The splits whose annotations are there."""
        folder = find_folder(Path(root), FOLDERS, ["PairAnnotation", "JPEGImages"], cls.about.title)
        return [split for split in cls.splits if (folder / "PairAnnotation" / split).is_dir()]

    def stored_sizes(self) -> dict[str, Size]:
        """Sizes of the annotations."""
        return self._stored

    def _candidates(self) -> Iterator[Candidate]:
        needed = [f"PairAnnotation/{self.split}", "JPEGImages"]
        self.folder = find_folder(self.root, FOLDERS, needed, self.about.title)
        annotations = self.folder / "PairAnnotation" / self.split
        listed = self.folder / "Layout" / self.layout / f"{self.split}.txt"
        if listed.is_file():
            names = listed.read_text(encoding="utf-8").split()
        elif self.layout == "large":
            names = sorted(path.name.removesuffix(".json") for path in annotations.glob("*.json"))
        else:
            raise DataError(
                f"expected the list of pairs {listed}, found none; restore it or set layout=large"
            )
        for name in names:
            images, found, category = name.rpartition(":")
            if not found or images.count("-") < 2:
                raise DataError(
                    f"expected pairs as <id>-<source>-<target>:<category> in {annotations} and {listed}, "
                    f"found {name!r}; restore them"
                )
            yield Candidate(name, category, annotations / f"{name}.json")

    def _views(self, candidate: Candidate) -> tuple[View, View, Mapping[str, object]]:
        path: Path = candidate.row
        record = read_json(path)
        if not isinstance(record, dict):
            raise DataError(f"expected an object in {path}, found {type(record).__name__}; restore it")
        # the file's name says which images these are; the record repeats it with the suffix
        _, source, target = candidate.pair_id.rpartition(":")[0].split("-", 2)
        views = [
            self._view(record, path, candidate.category, side, stem)
            for side, stem in (("src", source), ("trg", target))
        ]
        return views[0], views[1], {flag: record[flag] for flag in FLAGS if flag in record}

    def _view(self, record: dict[str, Any], path: Path, category: str, side: str, stem: str) -> View:
        needed = ["src_kps", "trg_kps", f"{side}_bndbox"]
        if missing := [key for key in needed if record.get(key) is None]:
            raise DataError(f"expected {', '.join(missing)} in {path}, found no such key; restore the file")
        kept = self._points(record, path, side)
        file_name = Path(str(record.get(f"{side}_imname") or f"{stem}.jpg")).name
        image_id = f"{category}/{Path(file_name).stem}"
        self.files.setdefault(image_id, self.folder / "JPEGImages" / category / file_name)
        size: Size | None = None
        if isinstance(stored := record.get(f"{side}_imsize"), list):  # width, height, channels
            width, height = numbers(stored[:2], 2, f"{side}_imsize of {path}")
            size = self._stored.setdefault(image_id, (int(width), int(height)))
        return View(image_id, kept, box(record[f"{side}_bndbox"], f"{side}_bndbox of {path}"), size)

    def _points(self, record: dict[str, Any], path: Path, side: str) -> dict[str, Point]:
        """Keypoints by id; without ids, by the place in the source, so that a query is still itself."""
        points = {key: _points_of(record[key], key, path) for key in ("src_kps", "trg_kps")}
        names = record.get("kps_ids") or [f"{x:g}_{y:g}" for x, y in points["src_kps"]]
        counts = {key: len(value) for key, value in points.items()} | {"kps_ids": len(names)}
        if len(set(counts.values())) > 1 or len(set(names)) < len(names):
            raise DataError(f"expected as many keypoints as ids in {path}, found {counts}; restore the file")
        return {
            str(name): point
            for name, point in zip(names, points[f"{side}_kps"], strict=True)
            if present(*point)
        }


def _points_of(values: Any, key: str, path: Path) -> list[Point]:
    if not isinstance(values, list):
        raise DataError(f"expected a list as {key} in {path}, found {str(values)[:60]}; restore the file")
    return [(xy[0], xy[1]) for xy in (numbers(v, 2, f"a keypoint of {key} in {path}") for v in values)]
