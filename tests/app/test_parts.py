"""What the page does without a browser: pictures, points, runs, whose turn it is."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffcorr.app.engine import Cancelled, Engine
from diffcorr.app.pictures import KEPT_SIDE, clicked, draw_points, picture_of, read_upload, shown_size
from diffcorr.app.points import check_points, parse_points, say_points
from diffcorr.app.runs import FILTERS, RunFolders
from diffcorr.errors import DiffcorrError, ImageError, UnknownNameError
from tests.helpers.fit_reference import image_of
from tests.helpers.tiny_models import tiny_backbone


def test_points_as_text() -> None:
    assert parse_points("120,88\n 40.5 60; 1, 2\n\n") == [(120, 88), (40.5, 60), (1, 2)]
    assert parse_points("") == []
    assert parse_points(say_points([(1.04, 2), (3, 4.5)])) == [(1, 2), (3, 4.5)]
    for wrong in ("12", "a,b", "1,2,3", "nan,1", "1e3,2"):
        with pytest.raises(DiffcorrError, match="x,y in each line"):
            parse_points(wrong)
    with pytest.raises(DiffcorrError, match="at most 64 points at once, found 65"):
        parse_points("1,2\n" * 65)
    with pytest.raises(ImageError, match="at least one point"):
        check_points([], picture_of(image_of(0, 8, 8)))
    with pytest.raises(ImageError, match="point 2 inside"):
        check_points([(1, 2), (9, 1)], picture_of(image_of(0, 8, 8)))


def test_a_large_picture_is_kept_smaller_and_told_in_its_own_pixels() -> None:
    picture = picture_of(np.zeros((3000, 4096, 3), np.uint8))
    assert picture.pixels.shape == (1500, KEPT_SIDE, 3)
    assert picture.size == (4096, 3000)
    assert picture.note == "4096 x 3000 pixels, worked on at 2048 x 1500"
    assert picture.to_kept([(4096, 1500)]) == [(2048, 750)]
    assert picture.to_given([(2048, 750)]) == [(4096, 1500)]
    assert shown_size(picture) == (640, 469)


@pytest.mark.parametrize("size", [(640, 480), (16, 64), (1, 1), (1, 3000)])
def test_a_click_is_the_pixel_that_is_drawn(size: tuple[int, int]) -> None:
    picture = picture_of(np.zeros((size[1], size[0], 3), np.uint8))
    width, height = shown_size(picture)
    x, y = clicked(picture, width // 4, height // 2)
    assert abs(x / size[0] - (width // 4 + 0.5) / width) < 1e-9
    assert 0 <= x <= size[0]
    assert 0 <= y <= size[1]
    drawn = draw_points(picture, [(x, y)])
    assert drawn.shape == (height, width, 3)
    assert drawn[height // 2, width // 4].min() == 255  # the dot itself


def test_uploads(tmp_path: Path) -> None:
    Image.fromarray(image_of(0, 30, 20)).save(tmp_path / "a.png")
    assert np.array_equal(read_upload(tmp_path / "a.png").pixels, image_of(0, 30, 20))
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "half.png").write_bytes((tmp_path / "a.png").read_bytes()[:300])
    for name in ("text.png", "half.png"):
        with pytest.raises(ImageError) as error:
            read_upload(tmp_path / name)
        assert str(tmp_path) not in str(error.value)  # visitors learn nothing of the server's disk
        assert name in str(error.value)
    with (tmp_path / "big.png").open("wb") as file:
        file.truncate(21 * 2**20)
    with pytest.raises(ImageError, match="at most 20 MB, found 21 MB"):
        read_upload(tmp_path / "big.png")
    Image.new("1", (9000, 9000)).save(tmp_path / "wide.png")  # few bytes, many pixels
    with pytest.raises(ImageError, match="at most 50 megapixels, found 9000 x 9000"):
        read_upload(tmp_path / "wide.png")


def test_runs_are_found_and_judged(runs: Path) -> None:
    folders = RunFolders(runs)
    assert folders.names() == ["mine/first"]
    run = folders.open("mine/first")
    assert folders.open("mine/first") is run
    (label,) = run.stored
    assert label == "prompt_fit, seed 0"
    stored = run.method(label)
    assert [run.places(stored, which) for which in FILTERS] == [[0, 1, 2], [1], [0, 2]]
    view = run.view(stored, 1)
    assert view.right.tolist() == [False] + [True] * (len(view.pair.keypoints) - 1)
    assert np.allclose(view.layers["layer.b"], 1)
    assert np.allclose(view.layers["layer.a"][1:], view.pair.target_points[1:])
    assert run.draw(view, "layer.b").get_size_inches().min() > 1
    with pytest.raises(UnknownNameError, match=r"layer\.c"):
        run.draw(view, "layer.c")
    with pytest.raises(UnknownNameError, match="method of the run"):
        run.method("prompt_fit")


def test_nothing_outside_of_the_root_is_opened(runs: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "link").symlink_to(runs / "mine" / "first")
    folders = RunFolders(root)
    assert folders.names() == []
    for name in ("../runs", str(runs / "mine/first"), "link", "", ".", "..", "nowhere", "a\0b"):
        with pytest.raises(DiffcorrError, match="expected a run folder below root"):
            folders.open(name)
    assert RunFolders(tmp_path / "missing").names() == []


def test_who_stops_ends_only_the_own_work() -> None:
    engine = Engine(tiny_backbone(), "toy")
    assert engine.presets[0] == "prompt_fit_paper"
    with engine.turn("a") as check:
        check()
        assert not engine.stop("b")
        check()
        assert engine.stop("a")
        with pytest.raises(Cancelled):
            check()
    assert not engine.stop("a")
    with engine.turn("a") as check:  # the next one is not stopped
        check()
