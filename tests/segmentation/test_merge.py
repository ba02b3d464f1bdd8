import pytest
import torch

from diffcorr.errors import DiffcorrError, UnknownNameError
from diffcorr.segmentation.merge import (
    anchor_distance,
    anchor_grid,
    greedy_groups,
    half_precision_kl,
    merge,
    packed,
    present,
    symmetric_kl,
)
from tests.helpers import merge_reference


def clustered_maps(side: int, num_clusters: int, spread: float, seed: int = 0) -> torch.Tensor:
    """(hw, hw) distributions around a few prototypes."""
    generator = torch.Generator().manual_seed(seed)
    prototypes = torch.randn(num_clusters, side * side, generator=generator)
    member = torch.randint(0, num_clusters, (side * side,), generator=generator)
    noise = torch.randn(side * side, side * side, generator=generator)
    return (prototypes[member] + spread * noise).softmax(-1)


@pytest.mark.parametrize(
    ("num_anchors", "line"),
    [(16, range(1, 62, 4)), (8, range(0, 64, 9)), (32, range(0, 63, 2)), (1, [31]), (64, range(64))],
)
def test_anchors_on_the_original_grid(num_anchors: int, line):
    expected = [y * 64 + x for y in line for x in line]
    assert anchor_grid((64, 64), num_anchors).tolist() == expected


def test_symmetric_kl_by_matrix_products_equals_the_definition():
    a, b = (clustered_maps(3, 2, 1.0, seed).double() for seed in (0, 1))
    found = symmetric_kl(a, b)
    expected = [[merge_reference.symmetric_kl(p, q) for q in b.tolist()] for p in a.tolist()]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=1e-13)


def test_symmetric_kl_equals_torch_in_single_precision():
    maps = clustered_maps(8, 3, 0.3)
    p, q = maps[:, None].log(), maps[None].log()
    kl = torch.nn.functional.kl_div
    expected = (
        kl(q, p, reduction="none", log_target=True) + kl(p, q, reduction="none", log_target=True)
    ).sum(-1) / 2
    torch.testing.assert_close(symmetric_kl(maps, maps), expected, rtol=1e-4, atol=1e-5)


def test_anchors_of_a_grid_that_is_no_square():
    # rows 0 and 2 of three, columns 1, 3 and 5 of seven
    assert anchor_grid((3, 7), (2, 3)).tolist() == [0 * 7 + 0, 3, 6, 2 * 7 + 0, 17, 20]


def kept(proposals: torch.Tensor) -> torch.Tensor:
    """The proposals of the only image."""
    return proposals[0][present(proposals)[0]]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("taus", [[0.3], [0.3, 0.3], [0.2, 0.5, 0.8]])
def test_exact_equals_the_literal_algorithm(seed: int, taus: list[float]):
    maps = clustered_maps(5, 4, 0.4, seed).double()
    anchors = anchor_grid((5, 5), 3)
    expected = merge_reference.merge(maps.tolist(), anchors.tolist(), taus)
    found = kept(merge(maps[None], anchors, taus))
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))
    single = kept(merge(maps[None].float(), anchors, taus))
    torch.testing.assert_close(single.double(), found, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("mode", ["exact", "reference"])
def test_images_of_a_batch_do_not_mix(mode: str):
    batch = torch.stack([clustered_maps(5, k, 0.4, seed) for seed, k in enumerate((1, 4, 9))]).double()
    anchors = anchor_grid((5, 5), 4)
    together = merge(batch, anchors, torch.tensor([0.2, 0.3, 0.4]), mode=mode)
    for own, tau, found in zip(batch, (0.2, 0.3, 0.4), together, strict=True):
        alone = merge(own[None], anchors, tau, mode=mode)[0]
        torch.testing.assert_close(found[: len(alone)], alone)
        assert found[len(alone) :].isnan().all()
    assert len({int(n) for n in present(together).sum(1)}) > 1


def test_one_threshold_stands_for_all_iterations():
    maps, anchors = clustered_maps(5, 4, 0.4)[None], anchor_grid((5, 5), 3)
    twice = merge(maps, anchors, [0.3, 0.3])
    torch.testing.assert_close(merge(maps, anchors, 0.3, iterations=2), twice, equal_nan=True)


def test_proposals_stand_in_the_order_of_their_anchors():
    maps = torch.eye(4)[None, [2, 2, 0, 0]] * 0.96 + 0.01
    torch.testing.assert_close(merge(maps, torch.arange(4), 0.5), maps[:, [0, 2]])


def test_packing_keeps_order_and_drops_what_no_image_needs():
    x = torch.nan
    proposals = torch.tensor([[x, 1.0, x, 2.0, x], [3.0, x, x, x, x]])[..., None].expand(-1, -1, 3)
    found = packed(proposals)[..., 0]
    torch.testing.assert_close(found, torch.tensor([[1.0, 2.0], [3.0, x]]), equal_nan=True)


def test_a_known_distance_is_used_as_it_is():
    maps, anchors = clustered_maps(5, 4, 0.4)[None], anchor_grid((5, 5), 3)
    for mode in ("exact", "reference"):
        distance = anchor_distance(maps, anchors, mode=mode)
        known = merge(maps, anchors, 0.3, mode=mode, distance=distance)
        torch.testing.assert_close(known, merge(maps, anchors, 0.3, mode=mode), equal_nan=True)
    everything = merge(maps, anchors, 0.3, iterations=1, distance=torch.zeros_like(distance))
    torch.testing.assert_close(everything[0], maps[0].mean(0).expand(9, -1))


def test_groups_absorb_those_that_are_taken_already():
    close = torch.eye(4, dtype=torch.bool)[None].repeat(2, 1, 1)
    close[0, 0, 1] = close[0, 2, 1] = close[0, 2, 3] = True
    # 1 goes with 0, and once more with 2; 3 goes with 2 and starts none
    first = [[1, 1, 0, 0], [0, 0, 0, 0], [0, 1, 1, 1], [0, 0, 0, 0]]
    assert greedy_groups(close).int().tolist() == [first, torch.eye(4).int().tolist()]


def test_half_precision_is_the_definition_in_half_precision():
    maps = clustered_maps(4, 3, 0.5)
    maps[5, 2] = 1e-9  # underflows
    found = half_precision_kl(maps[:6], maps)
    assert found.dtype == torch.float16
    broken = torch.zeros(6, 16, dtype=torch.bool)
    broken[5], broken[:, 5] = True, True
    assert torch.equal(found.isnan(), broken)
    exact = symmetric_kl(maps[:6], maps)
    torch.testing.assert_close(found[~broken].float(), exact[~broken], rtol=0.02, atol=2e-3)
    # not the rounded exact value: every step is rounded
    assert not torch.equal(found[~broken], exact[~broken].half())


def test_reference_drops_anchors_that_underflow_and_exact_keeps_them():
    maps = clustered_maps(4, 2, 0.01).double()
    maps[0, 0] = 1e-12
    anchors = torch.tensor([0, 5, 10, 15])
    assert len(kept(merge(maps[None], anchors, 1e-3, iterations=1, mode="reference"))) == 3
    assert len(kept(merge(maps[None], anchors, 1e-3, iterations=1, mode="exact"))) == 4
    maps[:, 0] = 1e-12
    with pytest.raises(DiffcorrError, match="use mode=exact"):
        merge(maps[None], anchors, 0.5, mode="reference")


def test_zeros_give_finite_proposals():
    maps = torch.eye(16).repeat_interleave(2, 0)[:16]  # one-hot maps, each twice
    proposals = kept(merge(maps[None], torch.arange(16), 0.5))
    assert torch.equal(proposals, torch.eye(16)[:8])


@pytest.mark.parametrize("num_anchors", [1, 2, 4])
def test_equal_maps_are_one_segment(num_anchors: int):
    maps = torch.full((16, 16), 1 / 16)
    for tau in (0.1, 1e-30):  # far below the rounding errors of a distance
        torch.testing.assert_close(
            kept(merge(maps[None], anchor_grid((4, 4), num_anchors), tau))[:1], maps[:1]
        )
    assert len(kept(merge(maps[None], anchor_grid((4, 4), num_anchors), 0.1))) == 1


def test_a_shifted_anchor_order_only_renumbers_separate_clusters():
    maps, anchors = clustered_maps(6, 3, 0.01)[None], anchor_grid((6, 6), 4)
    forward, backward = kept(merge(maps, anchors, 0.3)), kept(merge(maps, anchors.flip(0), 0.3))
    assert len(forward) == len(backward) == 3
    pairs = symmetric_kl(forward, backward) < 1e-3
    assert pairs.sum(0).tolist() == pairs.sum(1).tolist() == [1, 1, 1]


def test_errors_name_what_was_expected():
    maps = clustered_maps(4, 2, 0.1)[None]
    with pytest.raises(DiffcorrError, match=r"expected 1\.\.4 anchors .* found 5"):
        anchor_grid((6, 4), 5)
    with pytest.raises(DiffcorrError, match="finite attention maps"):
        merge(torch.full_like(maps, torch.nan), torch.arange(4), 0.5)
    with pytest.raises(DiffcorrError, match="positive thresholds"):
        merge(maps, torch.arange(4), -1.0)
    with pytest.raises(DiffcorrError, match="one or more iterations"):
        merge(maps, torch.arange(4), 0.9, iterations=0)
    with pytest.raises(UnknownNameError, match="known: exact, reference"):
        merge(maps, torch.arange(4), 0.9, mode="fast")
