"""PartWorld: pictures that the project draws itself, addressed by (split, index), no files needed."""

from diffcorr.data.partworld.dataset import (
    PartWorldImages,
    PartWorldPairs,
    PartWorldSegmentation,
    test_list_hash,
)
from diffcorr.data.partworld.scene import CLASSES, SIZE, Scene, draw_scene

__all__ = [
    "CLASSES",
    "SIZE",
    "PartWorldImages",
    "PartWorldPairs",
    "PartWorldSegmentation",
    "Scene",
    "draw_scene",
    "test_list_hash",
]
