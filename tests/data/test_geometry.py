import numpy as np
import pytest
import torch
from PIL import Image

from diffcorr.data.geometry import (
    CropResize,
    Geometry,
    Letterbox,
    Resize,
    check_inside,
    frame,
    image_size,
    image_to_tensor,
)
from diffcorr.errors import ImageError

GEOMETRIES = [
    Resize((50, 30), (64, 64)),
    CropResize(7, 3, 20, 11, (64, 48)),
    Letterbox((50, 30), (64, 64)),
    Letterbox((30, 50), (64, 64)),
]


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_points_come_back(geometry: Geometry) -> None:
    points = torch.rand(20, 2, dtype=torch.float64) * 50
    torch.testing.assert_close(geometry.inverse(geometry.forward(points)), points)
    torch.testing.assert_close(geometry.forward(geometry.inverse(points)), points)


def test_hand_computed_points() -> None:
    point = torch.tensor([[10.0, 15.0]])
    assert Resize((50, 30), (100, 90)).forward(point).tolist() == [[20.0, 45.0]]
    assert CropResize(5, 10, 10, 10, (20, 40)).forward(point).tolist() == [[10.0, 20.0]]
    # 50x30 into 100x100: scale 2, 60 rows high, 20 rows above
    assert Letterbox((50, 30), (100, 100)).forward(point).tolist() == [[20.0, 50.0]]


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_pixels_go_where_points_go(geometry: Geometry) -> None:
    """A smooth ramp has at every output pixel the coordinate that the point map says."""
    x = (torch.arange(50) + 0.5).expand(50, 50)
    out = geometry.apply(torch.stack([x, x.T])[:, : 50 if geometry.source[3] > 30 else 30])
    left, top, right, bottom = geometry.destination
    rows, columns = np.mgrid[top + 2 : bottom - 2, left + 2 : right - 2]
    centres = torch.tensor(np.stack([columns, rows], -1) + 0.5)
    expected = geometry.inverse(centres).float()
    found = out[:, top + 2 : bottom - 2, left + 2 : right - 2].permute(1, 2, 0)
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=0)


def test_letterbox_pads_with_fill() -> None:
    out = Letterbox((4, 2), (8, 8), fill=0.25).apply(torch.ones(1, 2, 4))
    assert out[0, :2].eq(0.25).all()
    assert out[0, 2:6].eq(1).all()


def test_antialias_agrees_with_pillow() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    ours = image_to_tensor(pixels, Resize((64, 64), (24, 24)))
    theirs = np.asarray(Image.fromarray(pixels).resize((24, 24), Image.Resampling.BILINEAR))
    difference = (ours.permute(1, 2, 0).numpy() + 1) * 127.5 - theirs
    assert np.abs(difference).max() < 1.1  # Pillow rounds twice


def test_image_to_tensor_is_exact_without_resize() -> None:
    pixels = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    out = image_to_tensor(pixels, frame((4, 4), 4))
    np.testing.assert_allclose(out.permute(1, 2, 0), pixels / 127.5 - 1, atol=1e-6)


@pytest.mark.parametrize(
    "broken",
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), "image.png"],
)
def test_what_is_no_rgb_image_is_said_in_one_line(broken: object) -> None:
    with pytest.raises(ImageError, match="expected an RGB image"):
        image_size(broken)  # type: ignore[arg-type]


def test_point_outside() -> None:
    check_inside((0.0, 30.0), (50, 30), "point")
    with pytest.raises(ImageError, match=r"query a inside its image of 50x30, found \(51, 3\)"):
        check_inside((51.0, 3.0), (50, 30), "query a")


def test_crop_outside_and_empty_and_unknown() -> None:
    with pytest.raises(ImageError, match="box inside an image"):
        CropResize(4, 0, 8, 4, (8, 8)).apply(torch.zeros(3, 8, 8))
    with pytest.raises(ImageError, match="at least one pixel"):
        CropResize(0, 0, 0, 4, (8, 8))
    with pytest.raises(ImageError, match="'stretch' or 'letterbox'"):
        frame((4, 4), 4, "tile")
