"""Whether a segmentation data set on disk is whole: counts, images and label maps that read, known ids."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from diffcorr.data.geometry import image_size
from diffcorr.data.images import read_image
from diffcorr.data.labels import IGNORED, fit_to_picture, orientation, read_label_map, to_classes
from diffcorr.data.report import Report
from diffcorr.data.segmentation_files import LabelledFile, SegmentationFiles
from diffcorr.errors import DataError, DiffcorrError, ImageError


@dataclass
class LabelReport(Report):
    """What was found, beside what every `Report` has.

    Attributes:
        images: number of images by split.
        official_images: the published numbers of those splits that have one.
        classes_found: number of classes that occur, by split.
        num_classes: of all classes.
        ignored: fraction of pixels that are not scored, by split.
    """

    images: dict[str, int] = field(default_factory=dict)
    official_images: dict[str, int] = field(default_factory=dict)
    classes_found: dict[str, int] = field(default_factory=dict)
    num_classes: int = 0
    ignored: dict[str, float] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether it is sound and each split that is there has all that the official one has."""
        official = self.official_images
        return self.sound and all(n == official.get(split, n) for split, n in self.images.items())

    def counts(self) -> list[str]:
        """What there is, for people, a line each."""
        whole = "complete" if self.complete else "a sound subset" if self.sound else "not usable as it is"
        lines = [f"{self.dataset} in {self.root}: {whole}"]
        for split, count in self.images.items():
            of = f" of {self.official_images[split]:,}" if split in self.official_images else ""
            labelled = (
                f", {self.classes_found[split]} of {self.num_classes} classes, "
                f"{100 * self.ignored[split]:.1f} % of pixels ignored"
                if self.num_classes
                else " without labels"
            )
            lines.append(f"{split}: {count:,}{of} images{labelled}")
        return lines


def check_labels(dataset: type[SegmentationFiles], root: str | Path) -> LabelReport:
    """Read every list, every image and every label map of a data set with its default options.

    A subset is sound if its own index agrees with its files: fewer images than the official ones are
    reported, not refused.

    Args:
        dataset: the class of the data set.
        root: where it is.

    Raises:
        DataError: no such folder, or none that looks like the data set.
    """
    report = LabelReport(dataset.name, str(root), num_classes=len(dataset.classes))
    for split in dataset.available(root):
        try:
            data = dataset.for_check(root, split)
        except DiffcorrError as error:
            report.problems.append(f"{split}: {error}")
            continue
        report.notes += data.notes
        _check_split(report, data)
        official = dataset.about.num_labelled.get(split)
        if official is None or data.notes:  # a note says that this is no published list
            continue
        report.official_images[split] = official
        if len(data) > official:
            report.problems.append(
                f"{split}: expected at most {official:,} images, found {len(data):,}: not the published list"
            )
    if not report.images and not report.problems:
        report.problems.append(f"expected images of {dataset.about.title} in one of its splits, found none")
    return report


def _check_split(report: LabelReport, data: SegmentationFiles) -> None:
    found: Counter[str] = Counter()
    first: dict[str, str] = {}
    pixels: Counter[int] = Counter()
    for file in data.files:
        what, told = _check_file(data, file, pixels)
        if what:
            found[what] += 1
            first.setdefault(what, told)
    for what, count in found.items():
        report.problems.append(f"{data.split}: {count:,} {what}, the first: {first[what]}")
    turned = [file for file in data.files if file.image.is_file() and _is_turned(file.image)]
    if turned:
        report.notes.append(
            f"{data.split}: {len(turned):,} images are turned upright by their EXIF flag; label maps are "
            "turned with them where they have the size of the picture as stored, else they have to mean the "
            f"upright one; the first: {turned[0].image}"
        )
    report.images[data.split] = len(data)
    report.classes_found[data.split] = len([c for c in pixels if c != IGNORED])
    report.ignored[data.split] = pixels[IGNORED] / max(1, sum(pixels.values()))


def _check_file(data: SegmentationFiles, file: LabelledFile, pixels: Counter[int]) -> tuple[str, str]:
    """What is wrong with one image, and of which file; counts the pixels of each class."""
    for what, path in (("images are missing", file.image), ("label maps are missing", file.label)):
        if path is not None and not path.is_file():
            return what, str(path)
    try:
        size = image_size(read_image(file.image))  # decoded whole: a header tells of no truncation
    except ImageError as error:
        return "images cannot be read", f"{file.image} ({error})"
    if file.label is None:
        return "", ""
    try:
        ids = read_label_map(file.label)
    except DataError as error:
        return "label maps cannot be read", f"{file.label} ({error})"
    try:
        ids = fit_to_picture(ids, size, file.label, file.image)
    except DataError:
        height, width = ids.shape
        return (
            "label maps have another size than their image",
            f"{file.label} ({width}x{height}, the image {size[0]}x{size[1]})",
        )
    try:
        classes, counts = np.unique(to_classes(ids, data.table, file.label), return_counts=True)
    except DataError as error:
        return "label maps have unknown ids", str(error)
    pixels.update(dict(zip(classes.tolist(), counts.tolist(), strict=True)))
    return "", ""


def _is_turned(path: Path) -> bool:
    try:
        return orientation(path) in range(2, 9)
    except OSError:
        return False
