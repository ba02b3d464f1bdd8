import pytest

from diffcorr.errors import UnknownNameError
from diffcorr.segmentation.framing import FITS, frame_image


def test_stretch_covers_the_grid_exactly():
    frame = frame_image((300, 100), 64, "stretch")
    assert frame.geometry.size == (64, 64)
    assert frame.window((16, 16)) == (slice(0, 16), slice(0, 16))
    assert frame.box((16, 16)) == (0, 0, 16, 16)


def test_a_crop_sees_the_central_square():
    frame = frame_image((300, 100), 64, "crop")
    assert frame.geometry.source == (100, 0, 200, 100)
    assert frame.window((16, 16)) == (slice(0, 16), slice(0, 16))
    assert frame.box((16, 16)) == (-16, 0, 32, 16)
    assert frame_image((100, 300), 64, "crop").box((8, 8)) == (0, -8, 8, 16)


def test_a_letterbox_leaves_out_the_padding():
    frame = frame_image((300, 100), 64, "letterbox")
    assert frame.geometry.destination == (0, 21, 64, 42)  # 21 rows of 64 show the image
    rows, columns = frame.window((16, 16))
    # 4 pixels a cell: the first centre inside is that of cell 5 (22), the last that of cell 9 (38)
    assert (rows, columns) == (slice(5, 10), slice(0, 16))
    assert frame.box((16, 16)) == pytest.approx((0, 21 / 4 - 5, 16, 42 / 4 - 5))


def test_a_letterbox_keeps_at_least_one_row():
    frame = frame_image((1000, 2), 64, "letterbox")
    rows, columns = frame.window((4, 4))
    assert rows.stop - rows.start == 1
    assert columns == slice(0, 4)


@pytest.mark.parametrize(
    ("size", "expected"),
    [((640, 480), (592, 448)), ((512, 512), (512, 512)), ((100, 3000), (96, 2800)), ((30, 20), (624, 416))],
)
def test_native_keeps_the_aspect_and_about_the_number_of_pixels(size, expected):
    frame = frame_image(size, 512, "native", 16)
    width, height = frame.geometry.size
    assert (width, height) == expected
    assert width * height == pytest.approx(512 * 512, rel=0.05)
    assert width / height == pytest.approx(size[0] / size[1], rel=0.04)
    assert frame.box((height // 8, width // 8)) == (0, 0, width // 8, height // 8)


def test_native_has_at_least_one_cell_of_the_coarsest_map():
    assert frame_image((10_000, 1), 64, "native", 16).geometry.size == (6400, 16)


def test_unknown_fits_are_listed():
    with pytest.raises(UnknownNameError, match=", ".join(FITS)):
        frame_image((3, 4), 64, "pad")
