"""Any folder of images without labels, such as DomainNet: for figures, not for scores."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain, zip_longest
from pathlib import Path

from diffcorr.data.segmentation_files import LabelledFile, SegmentationAbout, SegmentationFiles
from diffcorr.errors import DataError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")


class ImagesOnly(SegmentationFiles):
    """Images of a folder and the folders below it, without labels: DomainNet (Peng et al. 2019), or your own.

    There are no classes, so scores are refused; masks are predicted and drawn. Of DomainNet, laid out as
    ``<domain>/<class>/*.jpg``, the first folder is the rendering style (``clipart``, ``sketch``, ...). Images
    come from the first folders in turn, so that a few show them all. Image ids are paths below the folder.

    Args:
        root: the folder.
        split: only a label here.
        num_images: so many, from the first folders in turn (None: all).
        square: as `SegmentationFiles`.
        name: in results (None: the folder's).
        must_exist: as `SegmentationFiles`.

    Raises:
        DataError: no such folder, or no image in it.
        ImageError: an image cannot be read.
    """

    name = "images_only"
    about = SegmentationAbout(
        title="images without labels",
        source="your own, or DomainNet: http://ai.bu.edu/M3SDA/",
        licence="of your images; DomainNet: fair use, non-commercial research",
        size="of your images; DomainNet: 0.6 M images in six styles",
        layout="any folder of images; DomainNet: <domain>/<class>/*.jpg",
        citation="DomainNet: Peng et al. 2019, Moment Matching for Multi-Source Domain Adaptation",
    )

    def __init__(
        self,
        root: str | Path,
        split: str = "all",
        num_images: int | None = None,
        square: int | None = None,
        name: str | None = None,
        must_exist: bool = True,
    ) -> None:
        self.splits = (split,)  # type: ignore[misc]
        super().__init__(root, split, num_images, square, must_exist)
        self.name = name or self.root.resolve().name

    @classmethod
    def available(cls, root: str | Path) -> list[str]:
        """The one that there is."""
        return ["all"]

    def _index(self) -> Iterator[LabelledFile]:
        if not self.root.is_dir():
            raise DataError(f"expected a folder of images at {self.root}, found none: set data.root")
        by_style: dict[str, list[LabelledFile]] = {}
        for path in sorted(self.root.rglob("*")):
            parts = path.relative_to(self.root).parts
            if path.suffix.lower() in SUFFIXES and not any(part.startswith(".") for part in parts):
                by_style.setdefault(parts[0] if len(parts) > 1 else "", []).append(
                    LabelledFile("/".join(parts), path)
                )
        turns = chain.from_iterable(zip_longest(*by_style.values()))
        return (file for file in turns if file is not None)

    def _tags(self, file: LabelledFile) -> Mapping[str, object]:
        style, slash, _ = file.image_id.partition("/")
        return {"style": style} if slash else {}
