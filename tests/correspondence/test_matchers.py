"""Nearest neighbour, best buddies and re-ranking on features that a test can see through."""

import dataclasses
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from diffcorr.backbones import UNetBackbone
from diffcorr.correspondence import (
    DIFT,
    BestBuddies,
    FitConfig,
    NearestNeighbour,
    PromptFit,
    PromptFitRerank,
    TransferConfig,
    build_method,
)
from diffcorr.correspondence.best_buddies import mutual_nearest
from diffcorr.correspondence.features import FeatureSource, UNetFeatures
from diffcorr.correspondence.rerank import combine
from diffcorr.errors import DiffcorrError, UnknownNameError
from diffcorr.types import Pair, UInt8Image
from tests.helpers.fit_reference import image_of
from tests.helpers.tiny_models import save_tiny_pipeline


class Cells(FeatureSource):
    """The pixels of each cell of 4 x 4, of images of one size: what lies where is plain to see."""

    def __init__(self, side: int, prompt: str = "") -> None:
        super().__init__(side, prompt, cache_size=0)

    def compute(self, image: UInt8Image, key: str, prompt: str) -> Tensor:
        pixels = torch.tensor(image).permute(2, 0, 1)[None].float() - 127.5
        return F.pixel_unshuffle(pixels, 4)[0]


def pair_of(source: UInt8Image, target: UInt8Image, points: list[tuple[float, float]]) -> Pair:
    sizes = [(image.shape[1], image.shape[0]) for image in (source, target)]
    names = tuple(f"k{i}" for i in range(len(points)))
    box = (0.0, 0.0, 10.0, 10.0)
    return Pair("p", "toy", "fish", "a", "b", names, tuple(points), tuple(points), box, box, *sizes)


IMAGE = image_of(2, 32, 32)
MOVED = np.roll(IMAGE, (8, 4), axis=(0, 1))  # two cells down, one to the right


def test_a_cell_is_found_where_it_went() -> None:
    pair = pair_of(IMAGE, MOVED, [(5.0, 6.0), (17.9, 12.1), (32.0, 9.0)])
    found = NearestNeighbour(Cells(32), readout="cell").predict(pair, IMAGE, MOVED)
    # the centres of the cells that the points lie in, moved; the last leaves to the right and comes back
    assert [(p.x, p.y) for p in found] == [(10.0, 14.0), (22.0, 22.0), (2.0, 18.0)]
    assert [p.confidence for p in found] == pytest.approx([1, 1, 1])


def test_the_readout_by_cells_is_that_of_an_upright_grid() -> None:
    """Of a target of another aspect: 16 columns, 4 rows."""
    wide = image_of(5, 64, 16)
    wide[4:8, 40:44] = IMAGE[:4, :4]
    pair = pair_of(IMAGE, wide, [(1.0, 1.0)])
    (found,) = NearestNeighbour(Cells(32), readout="cell").predict(pair, IMAGE, wide)
    assert (found.x, found.y) == (42.0, 6.0)


def test_mutual_nearest_by_a_plain_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    source, target = torch.randn(3, 5, 4, generator=generator), torch.randn(3, 3, 7, generator=generator)
    s, t = (F.normalize(f.flatten(1), dim=0).numpy() for f in (source, target))
    cosines = s.T @ t
    expected = [
        (i, j)
        for i in range(20)
        for j in range(21)
        if cosines[i, j] == cosines[i].max() and cosines[i, j] == cosines[:, j].max()
    ]
    assert len(expected) > 3
    for rows in (1000, 6, 1):
        a, b, values = mutual_nearest(source, target, rows)
        found = [
            (int(y * 5) * 4 + int(x * 4), int(v * 3) * 7 + int(u * 7))
            for (x, y), (u, v) in zip(a.tolist(), b.tolist(), strict=True)
        ]
        assert found == expected
        np.testing.assert_allclose(values, [cosines[i, j] for i, j in expected], rtol=1e-5)
    torch.testing.assert_close(a[0, 0] * 4 % 1, torch.tensor(0.5).double())  # centres of cells


def test_there_is_always_a_pair_of_best_buddies() -> None:
    generator = torch.Generator().manual_seed(1)
    for _ in range(50):  # many equals: features of three values
        source, target = torch.randint(-1, 2, (2, 2, 4, 4), generator=generator).float()
        assert len(mutual_nearest(source, target, rows=5)[0]) >= 1
    a, b, _ = mutual_nearest(torch.zeros(2, 3, 3), torch.zeros(2, 2, 2))
    assert a.tolist() == [[1 / 6, 1 / 6]]
    assert b.tolist() == [[0.25, 0.25]]


def test_buddies_carry_points_between_cells_along() -> None:
    points = [(5.0, 7.0), (13.25, 2.5), (20.0, 21.0)]  # anywhere, not only at centres of cells
    method = BestBuddies(Cells(32))
    same = method.predict(pair_of(IMAGE, IMAGE, points), IMAGE, IMAGE)
    np.testing.assert_allclose([(p.x, p.y) for p in same], points)
    assert all(p.confidence == pytest.approx(1) for p in same)
    # in the middle of what moved by (4, 8) as a whole; falloff keeps what left the picture from pulling
    moved = BestBuddies(Cells(32), falloff=8).predict(pair_of(IMAGE, MOVED, points[:2]), IMAGE, MOVED)
    np.testing.assert_allclose([(p.x, p.y) for p in moved], [(9, 15), (17.25, 10.5)], atol=1e-3)


def test_few_buddies_and_points_that_would_leave_the_target() -> None:
    for number in (1, 2, 3):
        method = BestBuddies(Cells(32), num_buddies=number)
        found = method.predict(pair_of(IMAGE, MOVED, [(31.0, 31.0), (0.0, 0.0)]), IMAGE, MOVED)
        assert all(0 <= p.x <= 32 and 0 <= p.y <= 32 and 0 <= p.confidence <= 1 for p in found)
    flat = np.full_like(IMAGE, 255)  # all cells alike: one pair of buddies, a translation that is none
    (found,) = BestBuddies(Cells(32)).predict(pair_of(flat, flat, [(9.0, 11.0)]), flat, flat)
    assert (found.x, found.y) == (9, 11)


def test_wrong_options_are_one_line() -> None:
    for options, error, told in (
        ({"deformation": "rigid"}, UnknownNameError, "'rigid'; known: affine, similarity"),
        ({"falloff": 0}, DiffcorrError, "falloff above 0, found 0"),
        ({"num_buddies": 0}, DiffcorrError, "at least 1, found 0"),
    ):
        with pytest.raises(error, match=told):
            BestBuddies(Cells(32), **options)
    with pytest.raises(UnknownNameError, match="'patch'; known: pixel, cell"):
        NearestNeighbour(Cells(32), readout="patch")


def test_the_product_by_hand() -> None:
    heatmap, cosines = torch.tensor([[0.25, 0.81]]), torch.tensor([[0.64, -0.5]])
    torch.testing.assert_close(combine(heatmap, cosines, 0.5), torch.tensor([[0.4, 0.0]]))
    torch.testing.assert_close(combine(heatmap, cosines, 0.0), heatmap)
    torch.testing.assert_close(combine(heatmap, cosines, 1.0), torch.tensor([[0.64, 0.0]]))


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> UNetBackbone:
    return UNetBackbone.from_pretrained(save_tiny_pipeline(tmp_path_factory.mktemp("model")))


FIT = FitConfig(steps=1, rounds=1, loss_resolution=8, bank_size=4)
SOURCE, TARGET = image_of(0, 48, 40), image_of(1, 60, 36)
PAIR = pair_of(SOURCE, TARGET, [(5.0, 6.0), (47.9, 0.0)])


def reranked(backbone: UNetBackbone, weight: float, frame: str = "stretch") -> PromptFitRerank:
    fit = dataclasses.replace(FIT, frame=frame)
    read = TransferConfig(num_crops=4, frame=frame)
    return PromptFitRerank(backbone, UNetFeatures(backbone), None, fit, read, weight=weight)


@pytest.mark.parametrize("frame", ["stretch", "letterbox"])
def test_the_ends_are_prompt_fitting_and_the_nearest_neighbour(backbone: UNetBackbone, frame: str) -> None:
    fit = dataclasses.replace(FIT, frame=frame)
    plain = PromptFit(backbone, None, fit, TransferConfig(num_crops=4, frame=frame))
    expected = plain.predict(PAIR, SOURCE, TARGET)
    found = reranked(backbone, 0.0, frame).predict(PAIR, SOURCE, TARGET)
    assert [(p.x, p.y) for p in found] == [(p.x, p.y) for p in expected]
    assert [p.confidence for p in found] == pytest.approx([p.confidence for p in expected])
    if frame == "stretch":
        nearest = DIFT(backbone).predict(PAIR, SOURCE, TARGET)
        found = reranked(backbone, 1.0).predict(PAIR, SOURCE, TARGET)
        np.testing.assert_allclose([(p.x, p.y) for p in found], [(p.x, p.y) for p in nearest])
        assert [p.confidence for p in found] == pytest.approx([p.confidence for p in nearest], rel=1e-5)


@pytest.mark.parametrize("frame", ["stretch", "letterbox"])
def test_the_answer_is_where_the_product_peaks(backbone: UNetBackbone, frame: str) -> None:
    method = reranked(backbone, 0.6, frame)
    found = method.predict(PAIR, SOURCE, TARGET)
    results = method.locate(PAIR.queries(), TARGET, "toy/b", heatmaps=True)
    for prediction, result in zip(found, results, strict=True):
        assert (prediction.x, prediction.y) == result.point
        row, column = divmod(int(result.heatmap.argmax()), 32)
        at = np.array([column + 0.5, row + 0.5])
        # 60 x 36 stretched to 32 x 32, or letterboxed: 32 x 19 from row 6 on
        expected = at * [60 / 32, 36 / 32] if frame == "stretch" else (at - [0, 6]) * [60 / 32, 36 / 19]
        np.testing.assert_allclose(result.point, expected)
        assert prediction.confidence == pytest.approx(float(result.heatmap.max()))
        assert len(result.layer_maps) == len(backbone.paper_layers)
    assert method.locate(PAIR.queries(), TARGET, "toy/b")[0].heatmap is None


def test_embeddings_are_shared_with_prompt_fitting(backbone: UNetBackbone) -> None:
    plain = PromptFit(backbone, None, FIT, TransferConfig(num_crops=4))
    plain.fit(PAIR.queries(), {"a": SOURCE})
    method = reranked(backbone, 0.6)
    assert method.identity() == plain.identity()
    method.embeddings = plain.embeddings
    assert method.missing(PAIR.queries()) == []
    assert method.predict(PAIR, SOURCE, TARGET) == reranked(backbone, 0.6).predict(PAIR, SOURCE, TARGET)


def test_reranking_refuses_what_it_cannot_do(backbone: UNetBackbone) -> None:
    with pytest.raises(DiffcorrError, match=r"0\.\.1, found 1\.1"):
        reranked(backbone, 1.1)
    with pytest.raises(DiffcorrError, match=r"leave \{category\} out"):
        PromptFitRerank(backbone, UNetFeatures(backbone, prompt="a {category}"))


def test_parts_of_a_method_get_the_model_too(backbone: UNetBackbone) -> None:
    method = build_method(
        partial(NearestNeighbour, features=partial(UNetFeatures, block=0), name="mine"), backbone, None
    )
    assert method.features.backbone is backbone
    assert (method.features.block, method.name) == (0, "mine")
