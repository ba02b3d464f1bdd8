"""What is read of images: aggregated attention for any size and aspect, and its cache."""

from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from diffcorr.backbones.unet import UNetBackbone
from diffcorr.errors import BackboneError, DiffcorrError, StoreError, UnknownNameError
from diffcorr.segmentation import DiffSeg, KMeansAttention, NCut
from diffcorr.segmentation.aggregate import aggregate
from diffcorr.segmentation.cache import GIB, GraphCache

NUM_HEADS = 4  # of every layer of the random backbone


def random_image(height: int = 32, width: int = 32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def hooked_attention(backbone: UNetBackbone, image: np.ndarray, timestep: int) -> dict[tuple, torch.Tensor]:
    """Self-attention of a plain, full pass, from the outputs of the query and key projections."""
    outputs: dict[str, torch.Tensor] = {}
    handles = [
        module.register_forward_hook(lambda m, i, output, name=name: outputs.__setitem__(name, output))
        for name, module in backbone.unet.named_modules()
        if name.endswith(("attn1.to_q", "attn1.to_k"))
    ]
    with torch.no_grad():
        pixels = torch.from_numpy(image).float().permute(2, 0, 1)[None] / 127.5 - 1
        latents = backbone.vae.encode(pixels).latent_dist.mean * backbone.vae.config.scaling_factor
        backbone.unet(latents, timestep, backbone.null_prompt())
    for handle in handles:
        handle.remove()
    aspect = image.shape[1] / image.shape[0]
    layers = defaultdict(list)
    for name, query in outputs.items():
        if name.endswith("to_q"):
            key = outputs[name[:-4] + "to_k"]
            q, k = (x[0].unflatten(-1, (NUM_HEADS, -1)).transpose(0, 1) for x in (query, key))
            height = round((q.shape[1] / aspect) ** 0.5)
            maps = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1).mean(0)
            layers[height, q.shape[1] // height].append(maps)
    return {grid: torch.stack(maps).mean(0)[None] for grid, maps in layers.items()}


def values(method: DiffSeg, image: np.ndarray, backbone: UNetBackbone) -> torch.Tensor:
    (graph,) = method.affinity([image], backbone)
    return graph.values


def test_affinity_is_the_aggregated_attention_of_a_plain_pass(backbone: UNetBackbone):
    image = random_image()
    maps = hooked_attention(backbone, image, timestep=300)
    assert sorted(maps) == [(4, 4), (8, 8)]
    (graph,) = DiffSeg().affinity([image], backbone)
    assert (graph.grid, graph.box) == ((8, 8), (0, 0, 8, 8))
    torch.testing.assert_close(graph.values, aggregate(maps)[0], rtol=1e-4, atol=1e-7)
    only = values(DiffSeg(sides=[4]), image, backbone)
    torch.testing.assert_close(only, maps[4, 4][0], rtol=1e-4, atol=1e-7)
    largest = values(DiffSeg(sides=1), image, backbone)
    assert torch.equal(largest, values(DiffSeg(sides=[8]), image, backbone))


def test_native_reads_maps_that_are_no_square(backbone: UNetBackbone):
    image = random_image(24, 40)
    maps = hooked_attention(backbone, image, timestep=300)
    assert sorted(maps) == [(3, 5), (6, 10)]
    (graph,) = DiffSeg(fit="native").affinity([image], backbone)
    assert (graph.grid, graph.box) == ((6, 10), (0, 0, 10, 6))
    torch.testing.assert_close(graph.values, aggregate(maps)[0], rtol=1e-4, atol=1e-7)


def test_a_letterbox_reads_the_padded_image_and_keeps_its_cells(backbone: UNetBackbone):
    image = random_image(16, 32)
    padded = np.full((32, 32, 3), 127.5)
    padded[8:24] = image
    maps = aggregate(hooked_attention(backbone, padded, timestep=300))[0]
    (graph,) = DiffSeg(fit="letterbox").affinity([image], backbone)
    assert (graph.grid, graph.box) == ((4, 8), (0, 0, 8, 4))
    inner = maps[16:48, 16:48]  # rows 2..5 of 8
    torch.testing.assert_close(graph.values, inner / inner.sum(1, keepdim=True), rtol=1e-4, atol=1e-7)


def test_a_crop_reads_the_central_square(backbone: UNetBackbone):
    image = random_image(32, 48)
    (graph,) = DiffSeg(fit="crop").affinity([image], backbone)
    assert graph.box == (-2, 0, 10, 8)
    torch.testing.assert_close(graph.values, values(DiffSeg(), image[:, 8:40], backbone))


def test_an_input_larger_than_the_native_one_gives_larger_maps(backbone: UNetBackbone):
    (graph,) = DiffSeg(input_size=48).affinity([random_image()], backbone)
    assert graph.grid == (12, 12)
    with pytest.raises(BackboneError, match=r"multiple of 8 for .*, found 50"):
        DiffSeg(input_size=50).affinity([random_image()], backbone)


@pytest.mark.parametrize("fit", ["stretch", "crop", "letterbox", "native"])
def test_images_of_mixed_sizes_come_back_in_their_order(fit: str, backbone: UNetBackbone):
    images = [random_image(h, w, i) for i, (h, w) in enumerate([(32, 32), (20, 50), (64, 64), (20, 50)])]
    method = DiffSeg(fit=fit, tau=1e-4)
    together = method.affinity(images, backbone)
    masks = method.segment(images, backbone=backbone)
    for image, graph, mask in zip(images, together, masks, strict=True):
        (alone,) = method.affinity([image], backbone)
        assert (graph.grid, graph.box) == (alone.grid, alone.box)
        torch.testing.assert_close(graph.values, alone.values, rtol=1e-4, atol=1e-7)
        assert mask.shape == image.shape[:2]


def test_a_mask_lies_where_the_image_lies(backbone: UNetBackbone):
    """Left and right half of the image, by a graph that is made by hand, for every way to show it."""
    for fit, size in (
        ("stretch", (20, 60)),
        ("crop", (24, 48)),
        ("letterbox", (16, 48)),
        ("native", (16, 64)),
    ):
        method = DiffSeg(fit=fit, tau=0.5)
        (graph,) = method.affinity([random_image(*size)], backbone)
        left_edge, _, right_edge, _ = graph.box
        middle = (left_edge + right_edge) / 2
        left = (torch.arange(graph.grid[1]) + 0.5 < middle).repeat(graph.grid[0])
        made = torch.where(left[:, None] == left, 1.0, 0.01)
        mask = method.group(graph._replace(values=made / made.sum(1, keepdim=True)), size)
        expected = (torch.arange(size[1]) >= size[1] // 2).long().expand(size)
        assert torch.equal(mask, expected), fit


def test_noise_is_added_only_where_asked_and_is_seeded(backbone: UNetBackbone):
    image = random_image()
    clean, noisy = (values(DiffSeg(add_noise=noise), image, backbone) for noise in (False, True))
    assert not torch.allclose(noisy, clean, atol=1e-7)
    assert torch.equal(noisy, values(DiffSeg(add_noise=True), image, backbone))
    assert not torch.equal(noisy, values(DiffSeg(add_noise=True, seed=1), image, backbone))
    for graph in DiffSeg(add_noise=True).affinity([image] * 2, backbone):
        torch.testing.assert_close(graph.values, noisy, rtol=1e-4, atol=1e-8)


def test_the_backbone_is_left_as_it_was(backbone: UNetBackbone):
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    processors = dict(backbone.unet.attn_processors)
    for method in (DiffSeg(), NCut()):
        method.segment([random_image()], backbone=backbone)
    assert all(torch.equal(before[name], value) for name, value in backbone.state_dict().items())
    assert backbone.unet.attn_processors == processors
    assert not any(module._forward_hooks for module in backbone.unet.modules())


def test_what_is_cached_is_not_read_again(backbone: UNetBackbone, tmp_path: Path, monkeypatch):
    images = [random_image(seed=i) for i in range(3)]
    method = DiffSeg(cache=str(tmp_path), tau=1e-4)
    first = method.affinity(images[:2], backbone)
    asked: list[int] = []
    encode = backbone.encode
    monkeypatch.setattr(backbone, "encode", lambda x: asked.append(len(x)) or encode(x))
    # a new object, as in another run; other groupers and thresholds; only the third image is new
    again = DiffSeg(cache=str(tmp_path), tau=0.5, iterations=1).affinity(images, backbone)
    assert asked == [1]
    for a, b in zip(first, again, strict=False):
        assert torch.equal(a.values, b.values)
    KMeansAttention(cache=str(tmp_path), num_segments=2).segment(images, backbone=backbone)
    assert asked == [1]
    plain = replace(method, cache=None).segment(images, backbone=backbone)
    cached = method.segment(images, backbone=backbone)
    assert asked == [1, 3]
    assert all(np.array_equal(a, b) for a, b in zip(plain, cached, strict=True))


def test_other_readings_share_no_cache(backbone: UNetBackbone, tmp_path: Path):
    image = [random_image(24, 32)]
    readings = [
        DiffSeg(),
        DiffSeg(timestep=200),
        DiffSeg(sides=1),
        DiffSeg(mode="reference"),
        DiffSeg(fit="native"),
        DiffSeg(fit="letterbox"),
        DiffSeg(antialias=False),
        DiffSeg(input_size=48),
        DiffSeg(add_noise=True),
        DiffSeg(add_noise=True, seed=1),
        NCut(),
        NCut(feature_layer=0),
    ]
    for count, method in enumerate(readings, 1):
        (expected,) = method.affinity(image, backbone)
        for _ in range(2):
            (found,) = replace(method, cache=str(tmp_path)).affinity(image, backbone)
            assert torch.equal(found.values, expected.values)
        assert len(list(tmp_path.iterdir())) == count


def test_a_full_cache_takes_no_more(tmp_path: Path):
    graph = torch.rand(100, 100)
    cache = GraphCache(tmp_path, 2.5 * graph.nbytes / GIB)
    for i in range(4):
        cache.add(f"k{i}", graph + i)
    assert [cache.get(f"k{i}") is not None for i in range(4)] == [True, True, False, False]
    assert torch.equal(cache.get("k1"), graph + 1)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= cache.max_bytes
    # a new run counts what is there
    GraphCache(tmp_path, 2.5 * graph.nbytes / GIB).add("k9", graph)
    assert cache.get("k9") is None


def test_a_damaged_file_is_read_anew(tmp_path: Path):
    cache = GraphCache(tmp_path)
    cache.add("k", torch.ones(3))
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-5])
    assert cache.get("k") is None
    cache.add("k", torch.ones(3))
    assert cache.get("k") is not None
    with pytest.raises(StoreError, match="more than 0 GiB"):
        GraphCache(tmp_path, 0)


def test_errors_come_before_any_work(backbone: UNetBackbone):
    with pytest.raises(DiffcorrError, match=r"timestep in 0\.\.999, found 1000"):
        DiffSeg(timestep=1000)
    with pytest.raises(DiffcorrError, match="one or more sides"):
        DiffSeg(sides=0)
    with pytest.raises(UnknownNameError, match="fit 'pad'; known: stretch, crop, letterbox, native"):
        DiffSeg(fit="pad")
    with pytest.raises(BackboneError, match="needs a backbone"):
        DiffSeg().segment([random_image()])
    with pytest.raises(UnknownNameError, match="resolution 32; known: 8, 4"):
        DiffSeg(sides=[32]).segment([random_image()], backbone=backbone)
    with pytest.raises(UnknownNameError, match="99"):
        DiffSeg(layers=[99]).segment([random_image()], backbone=backbone)
