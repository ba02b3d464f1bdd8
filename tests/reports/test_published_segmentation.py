"""The table of the paper as data: every row with its protocol, and no column of two protocols."""

import pytest

from diffcorr.errors import UnknownNameError
from diffcorr.metrics import MASK_PROTOCOLS
from diffcorr.reports.published_segmentation import published_masks_table, published_segmentation

# accuracy, mIoU on COCO-Stuff-27 as printed by Tian et al., CVPR 2024
PAPER = {
    "IIC": (21.8, 6.7),
    "MDC": (32.3, 9.8),
    "PiCIE": (48.1, 13.8),
    "PiCIE+H": (50.0, 14.4),
    "STEGO": (56.9, 28.2),
    "ACSeg": (None, 28.1),
    "MaskCLIP": (32.2, 19.6),
    "ReCo": (46.1, 26.3),
    "K-Means-C": (58.9, 33.7),
    "K-Means-S": (62.6, 34.7),
    "DiffSeg (320)": (72.5, 43.0),
    "DiffSeg (512)": (72.5, 43.6),
}


def test_the_papers_table_is_there_in_its_order():
    rows = [r for r in published_segmentation() if r.dataset == "coco_stuff" and "Tian" in (r.paper or "")]
    found: dict[str, dict[str, float]] = {}
    for row in rows:
        found.setdefault(row.method, {})[row.metric] = row.value
    assert list(found) == list(PAPER)
    for method, (accuracy, miou) in PAPER.items():
        assert (found[method].get("accuracy"), found[method]["miou"]) == (accuracy, miou)


def test_every_row_has_a_protocol_and_global_ones_stand_apart():
    for row in published_segmentation():
        assert row.protocol in MASK_PROTOCOLS
        assert row.metric in ("miou", "accuracy")
        assert row.comparable == (row.measured is None)
        assert row.link
    by_method = {r.method: r.protocol for r in published_segmentation() if r.dataset == "coco_stuff"}
    assert {by_method[name] for name in ("IIC", "MDC", "PiCIE", "PiCIE+H", "STEGO")} == {"global"}
    assert by_method["DiffSeg (512)"] == "diffseg_512"
    header, _, *lines = published_masks_table("coco_stuff").splitlines()
    columns = [name.strip() for name in header.strip("|").split("|")]
    stego = dict(zip(columns, [c.strip() for c in lines[4].strip("|").split("|")], strict=True))
    assert stego["method"] == "STEGO"
    assert stego["miou (global)"] == "28.2"
    assert stego["miou (diffseg_512)"] == ""


def test_numbers_that_are_not_comparable_bear_a_note():
    table = published_masks_table("cityscapes")
    assert "| 76.0 [1] | 21.2 |" in table
    assert "[1] from memory, to be verified." in table
    with pytest.raises(UnknownNameError, match="known: coco_stuff, cityscapes"):
        published_masks_table("spair")
