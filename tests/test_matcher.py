"""Matching through the public API, on real diffusers classes with random weights."""

import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

import diffcorr
from diffcorr.backbones.catalog import TINY_FOLDER
from diffcorr.correspondence.prompt_fit import FitProgress
from diffcorr.correspondence.transfer import sharpness
from diffcorr.errors import DiffcorrError, ImageError, StoreError
from diffcorr.fitted import FittedPoints
from diffcorr.match import Match, grid_points
from diffcorr.matcher import Matcher, check_points
from tests.helpers.fit_reference import image_of
from tests.helpers.tiny_models import save_tiny_pipeline

SOURCE, TARGET = image_of(0, 60, 40), image_of(1, 21, 33)
POINTS = [(45.0, 30.0), (59.5, 0.0)]
QUICK = {"steps": 2, "rounds": 1, "num_crops": 5, "loss_resolution": 16, "layers": [5, 6]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_pipeline(tmp_path_factory.mktemp("model"))


def quick(folder: Path, **changes: object) -> Matcher:
    return Matcher.from_pretrained(folder, **{**QUICK, **changes})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def matcher(folder: Path) -> Matcher:
    return quick(folder)


@pytest.fixture(scope="module")
def match(matcher: Matcher) -> Match:
    return matcher.match(SOURCE, TARGET, POINTS, heatmaps=True)


def same(a: Match, b: Match) -> bool:
    return np.array_equal(a.targets, b.targets) and np.array_equal(a.confidence, b.confidence)


def test_a_match_has_its_shapes_and_lies_in_the_target(match: Match) -> None:
    assert match.targets.shape == (2, 2)
    assert match.confidence.shape == (2,)
    assert ((match.targets >= 0) & (match.targets <= (21, 33))).all()
    assert ((match.confidence > 0) & (match.confidence <= 1)).all()
    assert [points.shape for points in match.layer_points.values()] == [(2, 2)] * 2
    assert all("up_blocks.1" in name for name in match.layer_points)
    assert np.array_equal(match.points, POINTS)


def test_points_are_found_again_in_their_own_wide_picture(folder: Path) -> None:
    """Within about a cell of the 8x8 map; swapped axes or a missed scale would send them far away."""
    matcher = quick(folder, steps=30, lr=0.3, layers=[6], num_crops=4, timestep=1)
    with torch.no_grad():  # random weights attend to nothing in particular: steeper keys give them peaks
        for name, module in matcher.backbone.attention_modules().items():
            if name.endswith("attn2"):
                module.to_k.weight.mul_(8)
    points = [(45.0, 30.0), (10.0, 34.0), (40.0, 34.0), (10.0, 25.0)]
    found = matcher.match(SOURCE, SOURCE, points)
    assert np.linalg.norm(found.targets - points, axis=1).max() < 8


def test_every_kind_of_image_gives_the_same_answer(matcher: Matcher, match: Match, tmp_path: Path) -> None:
    Image.fromarray(SOURCE).save(tmp_path / "a.png")
    assert same(matcher.match(tmp_path / "a.png", TARGET / 255, torch.tensor(POINTS)), match)
    assert same(matcher.match(str(tmp_path / "a.png"), Image.fromarray(TARGET), np.array(POINTS)), match)


def test_the_seed_decides_and_nothing_else(folder: Path, match: Match) -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    assert same(quick(folder).match(SOURCE, TARGET, POINTS), match)
    assert torch.equal(torch.get_rng_state(), state)
    assert not same(quick(folder, seed=1).match(SOURCE, TARGET, POINTS), match)


def test_a_point_does_not_depend_on_what_else_is_asked(folder: Path) -> None:
    together = quick(folder, dtype="float64").match(SOURCE, TARGET, [*POINTS, POINTS[0]])
    alone = quick(folder, dtype="float64")
    alone.match(TARGET, SOURCE, [(1, 2)])
    for n in (1, 0):
        found = alone.match(SOURCE, TARGET, [POINTS[n]])
        assert np.array_equal(found.targets[0], together.targets[n])
        assert found.confidence[0] == pytest.approx(together.confidence[n], rel=1e-12)
    assert np.array_equal(together.targets[0], together.targets[2])


def test_a_point_is_fitted_once(folder: Path, match: Match, monkeypatch: pytest.MonkeyPatch) -> None:
    matcher = quick(folder)
    matcher.match(SOURCE, SOURCE, POINTS)

    def refuse(*args: object, **kwargs: object) -> None:
        raise RuntimeError("a gradient was asked for")

    monkeypatch.setattr(torch.Tensor, "backward", refuse)
    assert same(matcher.match(SOURCE, TARGET, POINTS), match)
    with pytest.raises(RuntimeError, match="a gradient"):
        matcher.match(SOURCE, TARGET, [(3, 3)])


def test_a_caller_without_gradients_gets_the_same(folder: Path, match: Match) -> None:
    with torch.no_grad():
        assert same(quick(folder).match(SOURCE, TARGET, POINTS), match)
    with torch.inference_mode():
        assert same(quick(folder).match(SOURCE, TARGET, POINTS), match)


@pytest.mark.parametrize("frame", ["stretch", "letterbox"])
def test_heatmaps_peak_at_the_targets(folder: Path, frame: str) -> None:
    matcher = quick(folder, frame=frame)
    found = matcher.match(SOURCE, TARGET, POINTS, heatmaps=True)
    assert found.heatmaps is not None
    assert found.heatmaps.shape == (2, 33, 21)
    assert found.heatmaps.dtype == np.float32
    for heatmap, (x, y), confidence in zip(found.heatmaps, found.targets, found.confidence, strict=True):
        at = heatmap[min(int(y), 32), min(int(x), 20)]
        assert at == pytest.approx(confidence, rel=0.02)
        assert at >= heatmap.max() * 0.98
    assert matcher.match(SOURCE, TARGET, POINTS).heatmaps is None


def test_plain_values_and_a_picture(match: Match, tmp_path: Path) -> None:
    read = json.loads(json.dumps(match.to_dict()))
    assert (read["source_size"], read["target_size"]) == ([60, 40], [21, 33])
    assert [m["point"] for m in read["matches"]] == [list(p) for p in POINTS]
    assert np.array_equal([m["target"] for m in read["matches"]], match.targets)
    assert [m["confidence"] for m in read["matches"]] == match.confidence.tolist()
    for n, m in enumerate(read["matches"]):
        assert m["layers"] == {name: p[n].tolist() for name, p in match.layer_points.items()}
    figure = match.plot(tmp_path / "new" / "match.png")
    with Image.open(tmp_path / "new" / "match.png") as picture:
        assert picture.format == "PNG"
        assert picture.size == tuple((figure.get_size_inches() * figure.dpi).round())
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError):
        match.plot(tmp_path / "file" / "match.png")


def test_presets_and_changes(folder: Path) -> None:
    paper = Matcher.from_pretrained(folder).method
    assert (paper.fit_config.steps, paper.fit_config.rounds) == (129, 5)  # the authors' defaults
    assert (paper.transfer_config.num_crops, paper.transfer_config.timestep) == (20, 140)
    reference = Matcher.from_pretrained(folder, preset="prompt_fit_reference", seed=3).method
    assert reference.transfer_config.timestep == 40
    assert reference.fit_config.seed == reference.transfer_config.seed == 3
    assert repr(reference.variant) == "ReferenceAttention()"
    changed = quick(folder, preset="prompt_fit_reference", timestep=7, layers=[4], seed=2).method
    assert changed.fit_config.timestep == changed.transfer_config.timestep == 7
    assert changed.fit_config.layers == changed.transfer_config.layers == (4,)
    heads = quick(folder, heads=[0, 2]).method
    assert repr(heads.variant) == "MeanAttention(heads=(0, 2))"
    assert repr(quick(folder, attention="reference").method.variant) == "ReferenceAttention()"
    half = quick(folder, dtype=torch.bfloat16).match(SOURCE, TARGET, POINTS)
    assert np.isfinite(half.confidence).all()


def test_a_match_weighed_by_features(folder: Path) -> None:
    """heatmap^(1/2) x cosine^(1/2): in the picture itself the cosine is 1 at the query."""
    plain, weighed = (
        quick(folder, preset=name).match(SOURCE, SOURCE, POINTS, heatmaps=True)
        for name in ("prompt_fit", "prompt_fit_rerank")
    )
    assert plain.heatmaps is not None
    assert weighed.heatmaps is not None
    for before, after, (x, y) in zip(plain.heatmaps, weighed.heatmaps, POINTS, strict=True):
        assert (after <= np.sqrt(before) + 1e-3).all()
        there = int(y), int(x)
        assert after[there] == pytest.approx(np.sqrt(before[there]), rel=0.05)
    assert quick(folder, preset="prompt_fit_rerank", block=0, ensemble=1).method.features.block == 0


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"preset": "promptfit"}, "unknown preset 'promptfit'; known: packed, prompt_fit, prompt_fit_paper"),
        ({"step": 2}, "unknown setting 'step'; known: bank_size"),
        ({"layers": [99]}, "cross-attention layer of .* 99; known: 0=down_blocks"),
        ({"attention": "max"}, "unknown attention 'max'"),
        ({"rounds": 0}, "expected rounds at least 1, found 0"),
        ({"token": 99}, "expected a token in 0..7"),
    ],
)
def test_a_wrong_setting_is_one_line(folder: Path, changes: dict[str, object], told: str) -> None:
    with pytest.raises(DiffcorrError, match=told) as error:
        quick(folder, **changes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("points", "told"),
    [
        ([], "at least one point, found none"),
        (np.zeros((0, 2)), "at least one point, found none"),
        ([(1, 2), (61, 3)], r"point 2 inside its image of 60x40, found \(61, 3\)"),
        ([(3, -1)], "point 1 inside its image"),
        ([(1, np.nan)], r"finite points, found \(1, nan\) as number 1"),
        ([(np.inf, 1)], "finite points"),
        ((3, 4), r"\(N, 2\), found \(2,\)"),
        ([(1, 2, 3)], r"\(N, 2\), found \(1, 3\)"),
        ([(1, 2), (3,)], "something else"),
        ([("a", "b")], "something else"),
        (None, r"found \(\)"),
    ],
)
def test_wrong_points_are_one_line(points: npt.ArrayLike, told: str) -> None:
    with pytest.raises(ImageError, match=told) as error:
        check_points(points, SOURCE)
    assert "\n" not in str(error.value)


def test_nothing_is_fitted_before_everything_is_checked(folder: Path) -> None:
    matcher = quick(folder)
    for source, target, points in [
        (SOURCE, "no.png", POINTS),
        ("no.png", TARGET, POINTS),
        (SOURCE, TARGET, []),
    ]:
        with pytest.raises(ImageError):
            matcher.match(source, target, points)
    with pytest.raises(ImageError, match="point 1 inside its image"):
        matcher.match(TARGET, SOURCE, POINTS)
    assert vars(matcher.method.embeddings) == {"_kept": {}}


def test_the_package_shows_its_api_and_loads_it_late() -> None:
    for name in diffcorr.__all__:
        assert getattr(diffcorr, name) is not None
        assert name in dir(diffcorr)
    assert diffcorr.Matcher is Matcher
    with pytest.raises(AttributeError, match="no attribute 'Matchr'"):
        _ = diffcorr.Matchr
    code = "import sys, diffcorr, diffcorr.cli; print(sorted({'torch', 'matplotlib'} & sys.modules.keys()))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


@pytest.mark.skipif(not TINY_FOLDER.is_dir(), reason="the embedded model's weights are not in this checkout")
def test_the_embedded_model_is_the_default() -> None:
    matcher = Matcher.from_pretrained(rounds=1, steps=2, num_crops=4)
    assert matcher.backbone.name == "tiny"
    assert matcher.method.fit_config.init == "features"  # of the preset tuned for it
    assert matcher.match(SOURCE, TARGET, POINTS).targets.shape == (2, 2)


def test_fitted_points_are_found_again_without_fitting(
    folder: Path, match: Match, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick(folder).fit(SOURCE, POINTS).save(tmp_path / "points.safetensors")
    fitted = FittedPoints.load(tmp_path / "points.safetensors")
    assert np.array_equal(fitted.source, SOURCE)
    assert np.array_equal(fitted.points, POINTS)

    def refuse(*args: object, **kwargs: object) -> None:
        raise RuntimeError("a gradient was asked for")

    monkeypatch.setattr(torch.Tensor, "backward", refuse)
    assert same(quick(folder).find(fitted, TARGET), match)


@pytest.mark.parametrize("share", ["round", "image"])
def test_points_that_share_prompts_are_kept_as_well(folder: Path, tmp_path: Path, share: str) -> None:
    matcher = quick(folder, share=share)
    matcher.fit(SOURCE, [*POINTS, (3, 4)])  # a third point in the same prompts
    expected = matcher.match(SOURCE, TARGET, POINTS)
    matcher.fit(SOURCE, POINTS).save(tmp_path / "points.safetensors")
    other = quick(folder, share=share)
    assert same(other.find(FittedPoints.load(tmp_path / "points.safetensors"), TARGET), expected)


def test_points_of_another_fit_or_file_are_refused(folder: Path, tmp_path: Path) -> None:
    fitted = quick(folder).fit(SOURCE, POINTS)
    with pytest.raises(DiffcorrError, match="fitted with steps=3, found 2: load the model and preset"):
        quick(folder, steps=3).find(fitted, TARGET)
    fitted.save(tmp_path / "points.safetensors")
    whole = (tmp_path / "points.safetensors").read_bytes()
    (tmp_path / "half.safetensors").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.safetensors").write_text("hello")
    for name, told in (("half", "fit and save them again"), ("text", "again"), ("none", "no file at")):
        with pytest.raises(StoreError, match=told) as error:
            FittedPoints.load(tmp_path / f"{name}.safetensors")
        assert "\n" not in str(error.value)


def test_several_targets_and_the_way_back(matcher: Matcher, match: Match) -> None:
    found, itself = matcher.match_all(SOURCE, [TARGET, SOURCE], POINTS, cycle=True)
    assert same(found, match)
    again = matcher.match(TARGET, SOURCE, found.targets)
    assert found.cycle_error is not None
    assert np.allclose(found.cycle_error, [math.dist(again.targets[n], POINTS[n]) for n in range(2)])
    assert np.array_equal(itself.source, itself.target)
    kept = found.mutual(within=float(found.cycle_error.min()))
    assert len(kept) >= 1
    assert np.array_equal(kept.targets, found.targets[found.cycle_error == found.cycle_error.min()])
    with pytest.raises(DiffcorrError, match="match with cycle=True"):
        match.mutual(3)


def test_a_dense_match_is_a_grid(matcher: Matcher) -> None:
    found = matcher.dense(SOURCE, TARGET, spacing=20, cycle=False)
    assert found.points.tolist() == [[x, y] for y in (10, 30) for x in (10, 30, 50)]
    assert grid_points(SOURCE, 100).tolist() == [[30, 20]]
    with pytest.raises(ImageError, match="at least 1 pixel"):
        matcher.dense(SOURCE, TARGET, spacing=0.5)


def test_rounds_and_layers_are_told(folder: Path) -> None:
    found = quick(folder, rounds=2).match(SOURCE, TARGET, POINTS, heatmaps=True)
    assert found.round_points is not None
    assert found.spread is not None
    assert found.round_points.shape == (2, 2, 2)
    for n in range(2):
        far = [math.dist(found.round_points[r, n], found.targets[n]) for r in range(2)]
        assert found.spread[n] == pytest.approx(sum(far) / 2)
    assert found.heatmaps is not None
    layers = [found.layer_heatmap(1, name) for name in found.layer_points]
    assert layers[0].shape == (33, 21)
    assert np.allclose(np.mean(layers, axis=0), found.heatmaps[1], atol=1e-6)
    one = found.select([1])
    assert one.layer_maps.keys() == found.layer_maps.keys()
    assert np.array_equal(one.targets, found.targets[1:])
    assert one.spread is not None


def test_progress_counts_to_its_end_and_may_stop_the_fit(folder: Path) -> None:
    seen: list[FitProgress] = []
    quick(folder, rounds=2, pack_size=3).fit(SOURCE, POINTS, seen.append)
    assert [at.done for at in seen] == [3, 6, 7, 8]  # packs of 3 and 1 prompts, two steps each
    assert {at.total for at in seen} == {8}
    assert all(at.loss > 0 for at in seen)

    def stop(at: FitProgress) -> None:
        raise InterruptedError

    matcher = quick(folder)
    with pytest.raises(InterruptedError):
        matcher.fit(SOURCE, POINTS, stop)
    assert vars(matcher.method.embeddings) == {"_kept": {}}


def test_sharpness_of_known_maps() -> None:
    side = 200
    grid = torch.arange(side) + 0.5 - 100
    squares = grid.square() + grid.square()[:, None]
    peak = torch.exp(-squares / (2 * (0.055 * side) ** 2))
    around = sharpness(peak, (100, 100), side)
    assert around == pytest.approx(1 - math.exp(-((0.1 / 0.055) ** 2) / 2), abs=0.01)
    assert sharpness(peak + 5, (100, 100), side) == pytest.approx(around, abs=1e-3)
    assert sharpness(torch.ones(side, side), (100, 100), side) == pytest.approx(math.pi * 0.01, abs=1e-3)
