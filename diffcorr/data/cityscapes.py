"""Cityscapes with the 27 classes of unsupervised segmentation."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from diffcorr.data.labels import IGNORED
from diffcorr.data.segmentation_files import LabelledFile, SegmentationAbout, SegmentationFiles, find_layout

FIRST_CLASS = 7
CLASSES = (
    *("road", "sidewalk", "parking", "rail track", "building", "wall", "fence", "guard rail", "bridge"),
    *("tunnel", "pole", "polegroup", "traffic light", "traffic sign", "vegetation", "terrain", "sky"),
    *("person", "rider", "car", "truck", "bus", "caravan", "trailer", "train", "motorcycle", "bicycle"),
)
IMAGE_END, LABEL_END = "_leftImg8bit.png", "_gtFine_labelIds.png"
FOLDERS = ("cityscapes", "Cityscapes")


class Cityscapes(SegmentationFiles):
    """Cityscapes (Cordts et al. 2016, arXiv 1604.01685), fine annotations.

    Format: ``leftImg8bit/<split>/<city>/*_leftImg8bit.png`` with ``gtFine/<split>/<city>/
    *_gtFine_labelIds.png``. Classes: ids 7 to 33, all classes that are no void, as PiCIE, STEGO and DiffSeg
    take them (not the 19 of the supervised benchmark, which are the ``labelTrainIds``); 0 to 6 and -1, in
    8 bits 255, are ignored. The test split has no public labels. Image ids are the file names without their
    end. Licence: research, after registration.

    Args:
        root: as `SegmentationFiles`.
        split: val or train.
        num_images: as `SegmentationFiles`.
        square: as `SegmentationFiles`.
        must_exist: as `SegmentationFiles`.

    Raises:
        DataError, ImageError, UnknownNameError: as `SegmentationFiles`.
    """

    name = "cityscapes"
    classes = CLASSES
    table: ClassVar[Mapping[int, int]] = {
        **dict.fromkeys([*range(FIRST_CLASS), 255], IGNORED),
        **{FIRST_CLASS + place: place for place in range(len(CLASSES))},
    }
    about = SegmentationAbout(
        title="Cityscapes",
        source="https://www.cityscapes-dataset.com (leftImg8bit_trainvaltest.zip, gtFine_trainvaltest.zip)",
        licence="research, after registration",
        size="11 GB of images, 241 MB of labels",
        layout="leftImg8bit/<split>/<city>/*_leftImg8bit.png + gtFine/<split>/<city>/*_gtFine_labelIds.png",
        citation="Cordts et al. 2016, The Cityscapes Dataset for Semantic Urban Scene Understanding",
        num_labelled={"val": 500, "train": 2_975},
    )

    @classmethod
    def available(cls, root: str | Path) -> list[str]:
        """The splits that have images."""
        _, images, _ = _layout(Path(root).expanduser())
        return [split for split in cls.splits if any((images / split).glob(f"*/*{IMAGE_END}"))]

    def _index(self) -> Iterator[LabelledFile]:
        _, images, labels = _layout(self.root)
        for path in sorted((images / self.split).glob(f"*/*{IMAGE_END}")):
            image_id = path.name.removesuffix(IMAGE_END)
            label = labels / self.split / path.parent.name / f"{image_id}{LABEL_END}"
            yield LabelledFile(image_id, path, label)


def _layout(root: Path) -> tuple[Path, Path, Path]:
    return find_layout(root, FOLDERS, [("leftImg8bit", "gtFine")], Cityscapes.about.title)
