import pickle

import pytest
import torch

from diffcorr.errors import ProtocolError, UnknownNameError
from diffcorr.metrics import SegmentationScore
from diffcorr.metrics.functional import class_counts, mean_iou_from_counts
from tests.helpers import metrics_reference


def random_images(num_images: int, num_segments: int, num_classes: int, seed: int = 0):
    generator = torch.Generator().manual_seed(seed)
    images = []
    for _ in range(num_images):
        # segments follow the label on most pixels; odd sizes make equally good matchings rare
        label = torch.randint(-1, num_classes, (9, 11), generator=generator)
        noise = torch.randint(0, num_segments, (9, 11), generator=generator)
        keep = torch.rand(9, 11, generator=generator) < 0.6
        images.append((torch.where(keep, (label.clamp_min(0) * 7 + 3) % num_segments, noise), label))
    return images


def score(images, num_classes: int, protocol: str = "per_image") -> dict[str, float]:
    metric = SegmentationScore(num_classes, protocol)
    for index, (mask, label) in enumerate(images):
        metric.update(mask, label, index)
    return {name: value.item() for name, value in metric.compute().items()}


def test_by_hand():
    # segment 5 is class 0 (2 of its 3 pixels, one pixel too many), segment 2 is class 2, segment 0 is
    # no class: its pixel of class 0 is missed; one pixel is ignored
    label = torch.tensor([[0, 0, 0, 2], [2, 2, 2, -1]])
    mask = torch.tensor([[5, 5, 0, 5], [2, 2, 2, 2]])
    tp, fp, fn = class_counts(mask, label, num_classes=3)
    assert tp.tolist() == [2, 0, 3]
    assert fp.tolist() == [1, 0, 0]
    assert fn.tolist() == [1, 0, 1]
    assert score([(mask, label)], 3) == {
        "miou": pytest.approx((2 / 4 + 3 / 4) / 2),
        "accuracy": pytest.approx(5 / 7),
    }


def test_counts_are_summed_over_the_data_set_before_iou_is_taken():
    half = (torch.tensor([[0, 0]]), torch.tensor([[0, 1]]))  # class 0: 1 / 2, class 1: 0 / 1
    full = (torch.tensor([[0] * 8]), torch.tensor([[0] * 8]))  # class 0: 8 / 8
    assert score([half, full], 2)["miou"] == pytest.approx((9 / 10 + 0) / 2)


@pytest.mark.parametrize("num_segments", [2, 4, 5])
def test_equals_the_slow_reference(num_segments: int):
    images = random_images(4, num_segments, num_classes=3, seed=num_segments)
    expected = metrics_reference.per_image_scores([(m.tolist(), c.tolist()) for m, c in images], 3)
    assert score(images, 3) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("case", ["random", "ties"])
def test_numbering_of_segments_does_not_matter(case: str):
    if case == "random":
        images = random_images(3, 9, 5)
    else:  # every segment overlaps both classes equally, there are more segments than classes
        images = [(torch.arange(6).repeat(4, 1), torch.tensor([[0] * 6, [0] * 6, [1] * 6, [1] * 6]))]
        images.append((torch.arange(4)[None], torch.tensor([[0, 0, 0, 1]])))
    expected = score(images, 5)
    for seed in range(5):
        renumbered = torch.randperm(40, generator=torch.Generator().manual_seed(seed))
        assert score([(renumbered[mask], label) for mask, label in images], 5) == expected


def test_the_original_accounting_blames_absent_classes_for_surplus_segments():
    label = torch.zeros(4, 4, dtype=torch.long)
    mask = torch.tensor([0, 0, 1, 2]).repeat(4, 1)
    assert score([(mask, label)], 3, "per_image")["miou"] == 0.5
    assert score([(mask, label)], 3, "diffseg_512")["miou"] == pytest.approx(0.5 / 3)


def test_per_image_counts_give_the_iou_of_each_image():
    images = random_images(3, 4, 3)
    metric = SegmentationScore(3)
    for index in (2, 0, 1, 0):  # any order, one repeated by a padding sampler
        metric.update(*images[index], index)
    index, counts = metric.per_image()
    assert index.tolist() == [0, 1, 2]
    for i, (mask, label) in enumerate(images):
        expected = metrics_reference.per_image_scores([(mask.tolist(), label.tolist())], 3)["miou"]
        assert mean_iou_from_counts(counts)[i].item() == pytest.approx(expected)
    assert metric.per_class().nanmean().item() == pytest.approx(metric.compute()["miou"].item())


def test_survives_pickling():
    metric = SegmentationScore(3)
    metric.update(*random_images(1, 4, 3)[0], 0)
    assert pickle.loads(pickle.dumps(metric)).compute() == metric.compute()


def test_errors_name_what_was_expected():
    mask = torch.zeros(2, 2, dtype=torch.long)
    with pytest.raises(UnknownNameError, match="known: per_image, global, diffseg_512"):
        SegmentationScore(3, "stego")
    with pytest.raises(ProtocolError, match="one shape"):
        SegmentationScore(3).update(mask, torch.zeros(3, 2, dtype=torch.long), 0)
    with pytest.raises(ProtocolError, match="integer segment ids"):
        SegmentationScore(3).update(mask - 1, mask, 0)
    with pytest.raises(ProtocolError, match="found none"):
        SegmentationScore(3).compute()
