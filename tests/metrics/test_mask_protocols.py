"""Each mask protocol where it parts from the others: by hand, and against slow independent programs."""

import numpy as np
import pytest
import torch

from diffcorr.errors import ProtocolError, UnknownNameError
from diffcorr.metrics import MASK_PROTOCOLS, MaskProtocol, SegmentationScore, compare_masks, score_masks
from diffcorr.metrics.frames import FRAMES, see
from diffcorr.metrics.functional.segmentation import (
    confusion,
    counts_of_image,
    counts_of_match,
    match_segments,
    mean_iou_from_counts,
)
from tests.helpers import masks_reference

INVARIANT = ("per_image", "global")


def random_images(num_images: int, num_segments: int, num_classes: int, seed: int = 0, size=(9, 12)):
    """Segments that follow the label on most pixels, with ignored ones."""
    generator = torch.Generator().manual_seed(seed)
    images = []
    for _ in range(num_images):
        label = torch.randint(-1, num_classes, size, generator=generator)
        noise = torch.randint(0, num_segments, size, generator=generator)
        keep = torch.rand(size, generator=generator) < 0.6
        images.append((torch.where(keep, (label.clamp_min(0) * 7 + 3) % num_segments, noise), label))
    return images


def scored(images, num_classes: int, protocol: str | MaskProtocol, background: int | None = None):
    metric = SegmentationScore(num_classes, protocol, background)
    for index, (mask, label) in enumerate(images):
        metric.update(mask, label, index)
    return metric


def values(metric: SegmentationScore) -> dict[str, float]:
    return {name: value.item() for name, value in metric.compute().items()}


def test_unmatched_segments_are_errors_and_false_positives_of_no_class():
    # 8 pixels of class 0 in three segments of 4, 2, 2; 4 of class 1 in the last of them and one of its own
    label = torch.tensor([[0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1]])
    mask = torch.tensor([[0, 0, 0, 0, 1, 1, 2, 2, 2, 3, 3, 3]])
    tp, fp, fn = counts_of_image(confusion(mask, label, 2))
    # 0 takes segment 0 and 1 takes segment 3; the five pixels of segments 1 and 2 are missed, and that is all
    assert (tp.tolist(), fp.tolist(), fn.tolist()) == ([4, 3], [0, 0], [4, 1])
    assert values(scored([(mask, label)], 2, "per_image")) == {
        "miou": pytest.approx((4 / 8 + 3 / 4) / 2),
        "accuracy": pytest.approx(7 / 12),
    }
    # each of them more is an error more, however it is numbered
    worse = torch.tensor([[0, 0, 0, 4, 1, 1, 2, 2, 2, 3, 3, 5]])
    assert values(scored([(worse, label)], 2, "per_image"))["accuracy"] == pytest.approx(5 / 12)


def test_without_a_common_pixel_there_is_no_match():
    # most pixels are right with class 0 in segment 0; segment 1 is left, which has no pixel of class 1
    label = torch.tensor([[0, 0, 0, 0, 0, 0, 0, 0, 1]])
    mask = torch.tensor([[0, 0, 0, 0, 0, 1, 1, 1, 0]])
    for hist in (confusion(mask, label, 2), confusion(mask, label, 2).flip(1)):
        assert sorted(match_segments(hist).tolist()) == [-1, 0]
        tp, fp, fn = counts_of_image(hist)
        assert (tp.tolist(), fp.tolist(), fn.tolist()) == ([5, 0], [1, 0], [3, 1])
    # the program matches them all the same, and class 1 gets three false positives
    assert counts_of_image(confusion(mask, label, 2), "diffseg")[1].tolist() == [1, 3]


@pytest.mark.parametrize("protocol", INVARIANT)
@pytest.mark.parametrize("case", ["random", "ties", "unlike ties", "surplus"])
def test_numbering_of_segments_never_matters(protocol: str, case: str):
    if case == "random":
        images = random_images(4, 6, 5)
    elif case == "ties":  # every segment overlaps both classes equally
        images = [(torch.arange(6).repeat(4, 1), torch.tensor([[0] * 6, [0] * 6, [1] * 6, [1] * 6]))] * 2
    elif case == "unlike ties":
        # class 0 may take segment 0 or 1, three pixels each; segment 0 holds two of class 1 as well
        images = [(torch.tensor([[0, 0, 0, 1, 1, 1, 0, 0, 2, 2, 2]]), torch.tensor([[0] * 6 + [1] * 5]))] * 2
    else:  # more segments than classes
        images = random_images(3, 12, 3, seed=4, size=(6, 6))
    expected = scored(images, 5, protocol)
    for seed in range(8):
        generator = torch.Generator().manual_seed(seed)
        # image by image a renumbering of its own; over a data set one for all, with gaps
        draws = [torch.randperm(40, generator=generator) for _ in images]
        renumbered = [
            (draws[0 if protocol == "global" else i][mask], label) for i, (mask, label) in enumerate(images)
        ]
        found = scored(renumbered, 5, protocol)
        assert values(found) == values(expected)
        assert torch.equal(found.per_image()[1], expected.per_image()[1])


def test_global_gives_an_id_one_class_in_all_images():
    # id 0 is class 1 in the first image (3 pixels) and class 0 in the second (2): over both it is class 1;
    # id 1 is class 0 in both (1 + 1)
    images = [
        (torch.tensor([[0, 0, 0, 1]]), torch.tensor([[1, 1, 1, 0]])),
        (torch.tensor([[0, 0, 1, 1]]), torch.tensor([[0, 0, 0, 1]])),
    ]
    metric = scored(images, 2, "global")
    assert metric.classes_of_segments().tolist() == [1, 0]
    # class 0: tp 2, fn 2 (of id 0), fp 1 (the last pixel); class 1: tp 3, fn 1, fp 2
    assert metric.per_image()[1].sum(0).tolist() == [[2, 3], [1, 2], [2, 1]]
    assert values(metric) == {"miou": pytest.approx((2 / 5 + 3 / 6) / 2), "accuracy": pytest.approx(5 / 8)}
    assert values(scored(images, 2, "per_image"))["accuracy"] == 7 / 8  # each image its own match


@pytest.mark.parametrize(("num_segments", "num_classes"), [(3, 3), (4, 2), (2, 4), (5, 3)])
def test_global_equals_trying_every_choice(num_segments: int, num_classes: int):
    images = random_images(4, num_segments, num_classes, seed=num_segments, size=(7, 9))
    expected = masks_reference.global_scores(images, num_classes)
    assert values(scored(images, num_classes, "global")) == pytest.approx(expected, abs=1e-12)


def test_global_with_as_many_clusters_as_classes_is_the_published_one():
    """STEGO's and PiCIE's: the confusion's rows brought into the order of the classes, then its diagonal."""
    images = random_images(6, 4, 4, seed=2)
    total = sum(confusion(mask, label, 4) for mask, label in images).double()
    cluster_of = torch.tensor([match_segments(total.long(), "global").tolist().index(c) for c in range(4)])
    square = total[:, cluster_of]
    assert (square.diagonal() > 0).all()
    iou = square.diagonal() / (square.sum(0) + square.sum(1) - square.diagonal())
    metric = scored(images, 4, "global")
    torch.testing.assert_close(metric.per_class(), iou)
    assert values(metric)["accuracy"] == pytest.approx((square.diagonal().sum() / square.sum()).item())


def test_functional_and_metric_agree_on_global():
    images = random_images(5, 6, 4, seed=9)
    total = sum(
        torch.nn.functional.pad(h, (0, 6 - h.shape[1])) for h in (confusion(m, c, 4) for m, c in images)
    )
    counts = counts_of_match(total, match_segments(total, "global"))
    metric = scored(images, 4, "global")
    assert torch.equal(metric.per_image()[1].sum(0), counts)
    assert values(metric)["miou"] == mean_iou_from_counts(counts).item()


def test_counts_under_global_are_kept_by_image():
    """An image scored alone under the match of all has the counts that it has among all."""
    images = random_images(4, 5, 3, seed=1)
    metric = scored(images, 3, "global")
    class_of = metric.classes_of_segments()
    for index, (mask, label) in enumerate(images):
        hist = confusion(mask, label, 3)
        expected = counts_of_match(hist, class_of[: hist.shape[1]])
        assert torch.equal(metric.per_image()[1][index], expected)
    interval = compare_masks(
        metric, scored([(label.clamp_min(0), label) for _, label in images], 3, "global")
    )
    assert interval.high < 0  # the labels themselves are better


@pytest.mark.parametrize("size", [(21, 31), (40, 17), (512, 512), (700, 640), (5, 5)])
def test_frames_equal_the_programs_own_resizing(size: tuple[int, int]):
    pixels = torch.arange(size[0] * size[1]).view(size)
    for side in (512, 320):
        expected = masks_reference.diffseg_frame(pixels.numpy(), side)
        np.testing.assert_array_equal(see(pixels, f"square_{side}").numpy(), expected)
    np.testing.assert_array_equal(
        see(pixels, "diffcut_128").numpy(), masks_reference.diffcut_frame(pixels.numpy())
    )
    assert torch.equal(see(pixels, "whole"), pixels)
    if size == (512, 512):
        assert torch.equal(see(pixels, "square_512"), pixels)


def test_an_image_of_one_pixel_is_seen_by_every_frame():
    for name in FRAMES:
        assert (see(torch.full((1, 1), 7), name) == 7).all()


@pytest.mark.parametrize("num_segments", [3, 30])
def test_diffseg_counts_on_the_centre_square_alone(num_segments: int):
    images = random_images(3, num_segments, 4, seed=num_segments, size=(20, 27))
    metric = scored(images, 4, "diffseg_320")
    for (mask, label), counts in zip(images, metric.per_image()[1], strict=True):
        seen = [masks_reference.diffseg_frame(pixels.numpy(), 320) for pixels in (mask, label)]
        np.testing.assert_array_equal(counts.numpy(), masks_reference.program_counts(*seen, 4))


@pytest.mark.parametrize("background", [None, 0, 2, 4])
@pytest.mark.parametrize("num_segments", [2, 5, 9, 20])
def test_diffcut_equals_the_slow_program(num_segments: int, background: int | None):
    generator = torch.Generator().manual_seed(num_segments)
    images = []
    for _ in range(3):  # blocks, among them void; ids with gaps; some classes absent
        mask = 2 * torch.randint(0, num_segments, (6, 6), generator=generator)
        label = torch.randint(-1, 5, (5, 4), generator=generator)
        grown = (mask.repeat_interleave(8, 0), label.repeat_interleave(10, 0))
        images.append(tuple(half.repeat_interleave(12, 1)[:43, :47] for half in grown))
    metric = scored(images, 5, "diffcut_128", background)
    for (mask, label), counts in zip(images, metric.per_image()[1], strict=True):
        expected = masks_reference.diffcut_counts(mask.numpy(), label.numpy(), 5, background)
        np.testing.assert_array_equal(counts.numpy(), expected)


def test_diffcut_merges_what_is_no_object():
    """An object cut in two on a background in three pieces, seen at 128: 32 pixels a strip."""
    strips = torch.tensor([0, 1, 1, 0]).repeat_interleave(33)[:129]
    label = strips.repeat(129, 1)  # the frame drops one row and one column
    mask = torch.tensor([3, 1, 0, 2]).repeat_interleave(33)[:129].repeat(129, 1)
    with_background = values(scored([(mask, label)], 2, "diffcut_128", background=0))
    without = values(scored([(mask, label)], 2, "diffcut_128"))
    # the object takes one of its halves; the other half and both ends become one segment: the background's
    assert with_background["accuracy"] == pytest.approx(3 / 4, abs=0.02)
    assert with_background["miou"] == pytest.approx((2 / 3 + 1 / 2) / 2, abs=0.02)
    assert without["accuracy"] == pytest.approx(2 / 4, abs=0.02)
    # void is background where there is one, and ignored where there is none
    void = torch.where(label == 1, 1, -1)
    assert values(scored([(mask, void)], 2, "diffcut_128", background=0)) == with_background
    assert values(scored([(mask, void)], 2, "diffcut_128"))["accuracy"] == pytest.approx(1 / 2, abs=0.02)


def test_only_diffcut_treats_the_background_apart():
    images = random_images(3, 6, 4, size=(12, 12))
    for name in set(MASK_PROTOCOLS) - {"diffcut_128"}:
        assert values(scored(images, 4, name, background=1)) == values(scored(images, 4, name))
    assert values(scored(images, 4, "diffcut_128", 1)) != values(scored(images, 4, "diffcut_128"))


class Voc:
    """A data set that says which class is the background."""

    name, split, classes, background = "voc", "val", ("background", "cat", "dog"), 0

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int):
        label = np.array([[0, 0, 1, 1, 2, -1]]).repeat(6, 0)
        return {"image_id": "a", "image": np.zeros((6, 6, 3), np.uint8), "label": label, "tags": {}}


def test_a_data_set_tells_its_background():
    masks = {"a": np.array([[5, 4, 0, 0, 1, 3]]).repeat(6, 0)}
    found = score_masks(masks, Voc(), "diffcut_128").per_image()[1][0].numpy()
    expected = masks_reference.diffcut_counts(masks["a"], Voc()[0]["label"], 3, 0)
    np.testing.assert_array_equal(found, expected)
    assert found.sum() > 0


def test_named_segments_are_not_matched():
    # class 0 named right twice and wrong once, class 1 named as no class (-1, and an id beyond the classes)
    label = torch.tensor([[0, 0, 0, 1, 1, 1, -1, -1]])
    mask = torch.tensor([[0, 0, 1, -1, 7, 1, 0, 5]])
    metric = scored([(mask, label)], 3, "words")
    assert metric.per_image()[1][0].tolist() == [[2, 1, 0], [0, 1, 0], [1, 2, 0]]
    assert values(metric) == {"miou": pytest.approx((2 / 3 + 1 / 4) / 2), "accuracy": pytest.approx(3 / 6)}
    # and against pixel by pixel counting; other names are other predictions
    images = random_images(3, 5, 4)
    truth = torch.cat([label.flatten() for _, label in images])
    named = torch.cat([mask.flatten() for mask, _ in images])
    counted = truth >= 0
    expected = float((truth == named)[counted].double().mean())
    assert values(scored(images, 4, "words"))["accuracy"] == pytest.approx(expected)
    iou = [
        float(((truth == c) & (named == c)).sum() / (((truth == c) | (named == c)) & counted).sum())
        for c in range(4)
    ]
    assert values(scored(images, 4, "words"))["miou"] == pytest.approx(sum(iou) / 4)


def test_protocols_and_metrics_refuse_what_they_cannot_be():
    with pytest.raises(UnknownNameError, match="accounting of a mask protocol 'nearest'; known: present"):
        MaskProtocol("mine", accounting="nearest")  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="frame of a mask protocol 'square_1'; known: whole"):
        MaskProtocol("mine", frame="square_1")
    with pytest.raises(ProtocolError, match="merge_background only with"):
        MaskProtocol("mine", merge_background=True)
    with pytest.raises(ProtocolError, match="'global', found 'per_image'"):
        scored(random_images(1, 2, 2), 2, "per_image").classes_of_segments()
    with pytest.raises(ProtocolError, match="found none"):
        SegmentationScore(2, "global").classes_of_segments()
    with pytest.raises(ProtocolError, match="background among 2 classes, found 2"):
        SegmentationScore(2, "diffcut_128", background=2)
    assert MaskProtocol("mine", "global", "square_320").frame == "square_320"
