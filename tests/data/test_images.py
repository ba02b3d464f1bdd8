"""Sizes told from headers are those of the pictures as read."""

from pathlib import Path

import pytest

from diffcorr.data.images import read_image, upright_size
from diffcorr.errors import ImageError
from tests.helpers.make_datasets import picture


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tiff"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_size_is_that_of_the_upright_picture(tmp_path: Path, suffix: str, orientation: int) -> None:
    path = picture(tmp_path / f"a.{suffix}", (17, 9), orientation=orientation)
    height, width, _ = read_image(path).shape
    assert upright_size(path) == (width, height) == ((9, 17) if orientation >= 5 else (17, 9))


@pytest.mark.parametrize("mode", ["L", "CMYK", "RGB"])
def test_every_mode_is_read_as_rgb(tmp_path: Path, mode: str) -> None:
    path = picture(tmp_path / "a.jpg", (7, 5), mode)
    assert read_image(path).shape == (5, 7, 3)
    assert upright_size(path) == (7, 5)


def test_what_is_no_image_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no image")
    for path, told in ((tmp_path / "a.jpg", "readable image"), (tmp_path / "b.jpg", "no file")):
        with pytest.raises(ImageError, match=told) as caught:
            upright_size(path)
        assert "\n" not in str(caught.value)
