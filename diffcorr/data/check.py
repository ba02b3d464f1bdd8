"""Whether a data set on disk is whole: counts against the official ones, images that read, points inside."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from PIL import ExifTags, Image

from diffcorr.data.geometry import image_size
from diffcorr.data.images import read_image
from diffcorr.data.pair_files import PairFiles
from diffcorr.data.report import Report
from diffcorr.errors import DiffcorrError, ImageError
from diffcorr.types import Point, Size


@dataclass
class PairReport(Report):
    """What was found, beside what every `Report` has.

    Attributes:
        num_images: images of the index.
        official_images: images of the complete data set, if there is such a number.
        pairs: number of pairs by split.
        official_pairs: the published numbers of those that have one.
        skipped: pairs left out, by split and reason.
    """

    num_images: int = 0
    official_images: int | None = None
    pairs: dict[str, int] = field(default_factory=dict)
    official_pairs: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, dict[str, int]] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether it is sound and has all that the official one has."""
        images = self.official_images in (None, self.num_images)
        return self.sound and images and all(self.pairs.get(s) == n for s, n in self.official_pairs.items())

    def counts(self) -> list[str]:
        """What there is, for people, a line each."""
        whole = "complete" if self.complete else "a sound subset" if self.sound else "not usable as it is"
        lines = [
            f"{self.dataset} in {self.root}: {_of(self.num_images, self.official_images)} images, {whole}"
        ]
        for split, count in self.pairs.items():
            left_out = "".join(f", {n:,} left out: {why}" for why, n in self.skipped[split].items())
            lines.append(f"{split}: {_of(count, self.official_pairs.get(split))} pairs{left_out}")
        return lines


def check(dataset: type[PairFiles], root: str | Path) -> PairReport:
    """Read every list, every annotation and every image of a data set with its default options.

    A subset is sound if its own index agrees with its files: fewer images or pairs than the official ones
    are reported, not refused.

    Args:
        dataset: the class of the data set.
        root: where it is.

    Raises:
        DataError: no such folder, or none that looks like the data set.
    """
    about = dataset.about
    report = PairReport(dataset.name, str(root), official_images=about.num_images)
    files: dict[str, Path] = {}
    points: dict[tuple[str, str, Point], None] = {}
    stored: dict[str, Size] = {}
    splits = dataset.available(root)
    for split in splits:
        try:
            data = dataset.for_check(root, split)
        except DiffcorrError as error:
            report.problems.append(f"{split}: {error}")
            continue
        report.pairs[split] = len(data.pairs)
        report.skipped[split] = dict(data.skipped)
        files |= data.files
        points |= dict.fromkeys(data.annotations())
        stored |= data.stored_sizes()
    report.official_pairs = dict(about.num_pairs)
    report.num_images = len(files)
    if not points and not report.problems:
        report.problems.append(
            f"expected annotated keypoints in {', '.join(splits) or 'a split'}, found none"
        )
    report.problems += [
        f"{split}: expected at most {official:,} pairs, found {report.pairs[split]:,}: not the published list"
        for split, official in about.num_pairs.items()
        if report.pairs.get(split, 0) > official
    ]
    if about.num_images is not None and len(files) > about.num_images:
        report.problems.append(
            f"expected at most {about.num_images:,} images, found {len(files):,} in the index"
        )
    _check_images(report, files, points, stored)
    return report


def _check_images(
    report: PairReport,
    files: dict[str, Path],
    points: Iterable[tuple[str, str, Point]],
    stored: dict[str, Size],
) -> None:
    sizes: dict[str, Size] = {}
    missing, unreadable, turned = [], [], []
    for image_id, path in sorted(files.items()):
        if not path.is_file():
            missing.append(str(path))
            continue
        try:
            sizes[image_id] = image_size(read_image(path))  # decoded whole: a header tells of no truncation
            if _is_turned(path):
                turned.append(str(path))
        except ImageError as error:
            unreadable.append(f"{path} ({error})")
    wrong = [
        f"{files[i]} ({sizes[i][0]}x{sizes[i][1]}, annotated as {size[0]}x{size[1]})"
        for i, size in sorted(stored.items())
        if i in sizes and sizes[i] != size
    ]
    outside = [
        f"{keypoint} of {files[image_id]} at ({x:g}, {y:g}) of {sizes[image_id][0]}x{sizes[image_id][1]}"
        for image_id, keypoint, (x, y) in points
        if image_id in sizes and not (0 <= x <= sizes[image_id][0] and 0 <= y <= sizes[image_id][1])
    ]
    for what, found in (
        ("images are missing", missing),
        ("images cannot be read", unreadable),
        ("images have another size than their annotation", wrong),
        ("keypoints lie outside of their image", outside),
    ):
        if found:
            report.problems.append(f"{len(found):,} {what}, the first: {found[0]}")
    if turned:
        report.notes.append(
            f"{len(turned):,} images are turned upright by their EXIF flag, annotations have to mean the "
            f"upright picture; the first: {turned[0]}"
        )


def _is_turned(path: Path) -> bool:
    with Image.open(path) as picture:
        return picture.getexif().get(ExifTags.Base.Orientation, 1) in range(2, 9)


def _of(found: int, official: int | None) -> str:
    return f"{found:,}" if official is None else f"{found:,} of {official:,}"
