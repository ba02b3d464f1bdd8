"""PASCAL VOC 2012 segmentation: twenty objects and the background."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from diffcorr.data.labels import IGNORED
from diffcorr.data.segmentation_files import LabelledFile, SegmentationAbout, SegmentationFiles, find_layout
from diffcorr.errors import DataError

CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train"),
    "tvmonitor",
)
VOID = 255
FOLDERS = ("VOC2012", "VOCdevkit/VOC2012", "VOCdevkit", "pascal_voc")


class PascalVOC(SegmentationFiles):
    """PASCAL VOC 2012 segmentation (Everingham et al. 2010).

    Format: ``JPEGImages/*.jpg``, ``SegmentationClass/*.png`` with a palette, whose indices are the classes (0
    background, 1 to 20 objects, 255 void, the seam around objects), and ``ImageSets/Segmentation/
    <split>.txt``, an image a line. Void is ignored. Licence: research; images: Flickr terms of use.

    Args:
        root: as `SegmentationFiles`.
        split: val, train or trainval.
        num_images: as `SegmentationFiles`.
        square: as `SegmentationFiles`.
        must_exist: as `SegmentationFiles`.

    Raises:
        DataError, ImageError, UnknownNameError: as `SegmentationFiles`.
    """

    name = "pascal_voc"
    splits = ("val", "train", "trainval")
    classes = CLASSES
    background = 0
    table: ClassVar[Mapping[int, int]] = {**{place: place for place in range(len(CLASSES))}, VOID: IGNORED}
    about = SegmentationAbout(
        title="PASCAL VOC 2012",
        source="http://host.robots.ox.ac.uk/pascal/VOC/voc2012/ (VOCtrainval_11-May-2012.tar)",
        licence="research; images: Flickr terms of use",
        size="2 GB",
        layout="VOCdevkit/VOC2012/{JPEGImages,SegmentationClass,ImageSets/Segmentation/<split>.txt}",
        citation="Everingham et al. 2010, The PASCAL Visual Object Classes Challenge",
        num_labelled={"val": 1_449, "train": 1_464, "trainval": 2_913},
    )

    @classmethod
    def available(cls, root: str | Path) -> list[str]:
        """The splits whose list is there."""
        base, _, _ = _layout(Path(root).expanduser())
        return [split for split in cls.splits if _list(base, split).is_file()]

    def _index(self) -> Iterator[LabelledFile]:
        base, images, labels = _layout(self.root)
        path = _list(base, self.split)
        if not path.is_file():
            raise DataError(
                f"expected the list {path} of PASCAL VOC 2012, found none; take another split or restore it"
            )
        for name in dict.fromkeys(path.read_text().split()):
            if "/" in name or "\\" in name:
                raise DataError(
                    f"expected a name a line in {path}, such as 2007_000033, found {name[:60]!r}; restore it"
                )
            yield LabelledFile(name, images / f"{name}.jpg", labels / f"{name}.png")


def _layout(root: Path) -> tuple[Path, Path, Path]:
    return find_layout(root, FOLDERS, [("JPEGImages", "SegmentationClass")], PascalVOC.about.title)


def _list(base: Path, split: str) -> Path:
    return base / "ImageSets" / "Segmentation" / f"{split}.txt"
