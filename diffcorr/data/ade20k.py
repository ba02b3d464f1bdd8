"""ADE20K with the 150 classes of the scene parsing benchmark."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import ClassVar

from diffcorr.data.labels import IGNORED
from diffcorr.data.segmentation_files import LabelledFile, SegmentationAbout, SegmentationFiles, find_layout

NAMES = """
wall, building, sky, floor, tree, ceiling, road, bed, windowpane, grass, cabinet, sidewalk, person,
earth, door, table, mountain, plant, curtain, chair, car, water, painting, sofa, shelf, house, sea,
mirror, rug, field, armchair, seat, fence, desk, rock, wardrobe, lamp, bathtub, railing, cushion, base,
box, column, signboard, chest of drawers, counter, sand, sink, skyscraper, fireplace, refrigerator,
grandstand, path, stairs, runway, case, pool table, pillow, screen door, stairway, river, bridge,
bookcase, blind, coffee table, toilet, flower, book, hill, bench, countertop, stove, palm, kitchen
island, computer, swivel chair, boat, bar, arcade machine, hovel, bus, towel, light, truck, tower,
chandelier, awning, streetlight, booth, television, airplane, dirt track, apparel, pole, land, bannister,
escalator, ottoman, bottle, buffet, poster, stage, van, ship, fountain, conveyer belt, canopy, washer,
plaything, swimming pool, stool, barrel, basket, waterfall, tent, bag, minibike, cradle, oven, ball,
food, step, tank, trade name, microwave, pot, animal, bicycle, lake, dishwasher, screen, blanket,
sculpture, hood, sconce, vase, traffic light, tray, ashcan, fan, pier, crt screen, plate, monitor,
bulletin board, shower, radiator, glass, clock, flag"""
"""The first name of each line of the benchmark's objectInfo150.txt."""

CLASSES = tuple(" ".join(name.split()) for name in NAMES.split(","))
FOLDERS = ("ADEChallengeData2016", "ADE20K", "ade20k")
FOLDER_OF_SPLIT = {"val": "validation", "train": "training"}


class ADE20K(SegmentationFiles):
    """ADE20K, scene parsing benchmark (Zhou et al. 2017, arXiv 1608.05442).

    Format: ``images/<split>/*.jpg`` with ``annotations/<split>/*.png``, where the folders are called
    ``training`` and ``validation``. Ids 1 to 150 are the classes, 0 (everything else) is ignored. The full
    ADE20K release is another set with other files. Licence: images: research and education; annotations:
    BSD 3-clause.

    Args:
        root: as `SegmentationFiles`.
        split: val or train.
        num_images: as `SegmentationFiles`.
        square: as `SegmentationFiles`.
        must_exist: as `SegmentationFiles`.

    Raises:
        DataError, ImageError, UnknownNameError: as `SegmentationFiles`.
    """

    name = "ade20k"
    classes = CLASSES
    table: ClassVar[Mapping[int, int]] = {0: IGNORED, **{place + 1: place for place in range(len(CLASSES))}}
    about = SegmentationAbout(
        title="ADE20K scene parsing",
        source="http://sceneparsing.csail.mit.edu (ADEChallengeData2016.zip)",
        licence="images: research and education; annotations: BSD 3-clause",
        size="923 MB",
        layout="ADEChallengeData2016/{images,annotations}/{training,validation}",
        citation="Zhou et al. 2017, Scene Parsing through ADE20K Dataset",
        num_labelled={"val": 2_000, "train": 20_210},
    )

    @classmethod
    def available(cls, root: str | Path) -> list[str]:
        """The splits that have images."""
        _, images, _ = _layout(Path(root).expanduser())
        return [split for split, folder in FOLDER_OF_SPLIT.items() if any((images / folder).glob("*.jpg"))]

    def _index(self) -> Iterator[LabelledFile]:
        _, images, labels = _layout(self.root)
        folder = FOLDER_OF_SPLIT[self.split]
        for path in sorted((images / folder).glob("*.jpg")):
            yield LabelledFile(path.stem, path, labels / folder / f"{path.stem}.png")


def _layout(root: Path) -> tuple[Path, Path, Path]:
    return find_layout(root, FOLDERS, [("images", "annotations")], ADE20K.about.title)
