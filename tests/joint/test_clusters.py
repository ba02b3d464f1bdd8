"""Ids that agree across images: pooled features, clusters, and what they must not depend on."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from diffcorr.backbones.unet import UNetBackbone
from diffcorr.config import config_folder, load_option
from diffcorr.correspondence.features import UNetFeatures
from diffcorr.errors import DiffcorrError
from diffcorr.joint import ChanceClusters, FeatureClusters
from diffcorr.joint.clusters import cluster_features, segment_features
from tests.helpers.tiny_models import save_tiny_pipeline


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> UNetBackbone:
    return UNetBackbone.from_pretrained(save_tiny_pipeline(tmp_path_factory.mktemp("pipeline")))


def data(num_images: int = 4) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    sizes = [(20 + 3 * i, 32 - 2 * i) for i in range(num_images)]
    images = {f"i{i}": rng.integers(0, 256, (*size, 3), dtype=np.uint8) for i, size in enumerate(sizes)}
    masks = {f"i{i}": rng.choice([0, 2, 5], size) for i, size in enumerate(sizes)}
    return images, masks


def test_pooled_features_are_means_over_the_pixels_of_a_segment():
    features = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    mask = np.random.default_rng(0).choice([1, 4, 6], (11, 9))
    ids, means = segment_features(features, mask)
    assert ids.tolist() == [1, 4, 6]
    pixels = F.interpolate(features[None], mask.shape, mode="bilinear")[0]
    for k, mean in zip(ids.tolist(), means, strict=True):
        expected = torch.stack([pixels[:, y, x] for y, x in zip(*np.nonzero(mask == k), strict=True)]).mean(0)
        assert torch.allclose(mean, expected, atol=1e-5)


def test_clusters_are_directions_and_the_largest_comes_first():
    generator = torch.Generator().manual_seed(0)
    directions = torch.eye(4)[[0, 1, 1, 2, 2, 2, 3, 3, 3, 3]]
    lengths = torch.rand(10, 1, generator=generator) * 5 + 1
    points = directions * lengths + 0.01 * torch.randn(10, 4, generator=generator)
    # channels of other scales and offsets are brought to one
    points = points * torch.tensor([1.0, 100.0, 0.01, 5.0]) + torch.tensor([50.0, -3.0, 0.0, 1e3])
    found = cluster_features(points, 4)
    assert found.tolist() == [3, 2, 2, 1, 1, 1, 0, 0, 0, 0]
    assert cluster_features(points[:2], 4).tolist() == [0, 1]  # no more clusters than segments
    assert cluster_features(torch.ones(3, 2), 1).tolist() == [0, 0, 0]


def test_ids_depend_neither_on_the_order_of_images_nor_on_segment_numbers(backbone: UNetBackbone):
    images, masks = data()

    def clusters(seed: int = 0) -> FeatureClusters:
        return FeatureClusters(
            features=UNetFeatures(backbone, block=0, ensemble=1), num_clusters=5, seed=seed
        )

    found = clusters()(images, masks, 3, "toy")
    assert set(found) == set(images)
    reordered = {i: masks[i] for i in reversed(masks)}
    again = clusters()({i: images[i] for i in reordered}, reordered, 3, "toy")
    assert all(np.array_equal(found[i], again[i]) for i in images)
    shifted = clusters()(images, {i: mask + 7 for i, mask in masks.items()}, 3, "toy")
    for i, mask in masks.items():
        assert np.array_equal(found[i][mask], shifted[i][mask + 7])
        assert set(np.unique(found[i][mask])) <= set(range(5))
    assert len(np.unique(np.concatenate([found[i][masks[i]].ravel() for i in images]))) == 5


def test_chance_draws_one_id_for_each_segment():
    images, masks = data()
    found = ChanceClusters(seed=1)(images, masks, 3)
    reordered = ChanceClusters(seed=1)(images, {i: masks[i] for i in reversed(masks)}, 3)
    assert all(np.array_equal(found[i], reordered[i]) for i in masks)
    drawn = np.concatenate([found[i][[0, 2, 5]] for i in masks])
    assert set(drawn) <= {0, 1, 2}
    assert len(set(drawn)) > 1


@pytest.mark.parametrize("wrong", [0, -3, "class", 2.5])
def test_a_wrong_number_of_clusters_is_one_line(backbone: UNetBackbone, wrong: object):
    with pytest.raises(DiffcorrError, match="num_clusters as a number >= 1 or 'classes', found"):
        FeatureClusters(features=UNetFeatures(backbone), num_clusters=wrong)  # type: ignore[arg-type]


def test_without_classes_the_number_has_to_be_given(backbone: UNetBackbone):
    images, masks = data(1)
    for clusters in (FeatureClusters(features=UNetFeatures(backbone)), ChanceClusters()):
        with pytest.raises(DiffcorrError, match="found a data set without any: set"):
            clusters(images, masks, 0)


def test_every_config_has_the_name_of_its_file():
    for path in (config_folder() / "clusters").glob("*.yaml"):
        assert load_option("clusters", path.stem, {"seed": 0}).name == path.stem
