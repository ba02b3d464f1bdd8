"""Images of any kind, models and presets by name."""

from pathlib import Path

import hydra
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from diffcorr.config import config_folder, load_option
from diffcorr.errors import DiffcorrError, ImageError, UnknownNameError
from diffcorr.inputs import as_image, content_id, load_backbone, load_preset, override
from tests.helpers.fit_reference import image_of

RGB = image_of(0, 7, 5)


def test_all_kinds_of_one_picture_are_the_same(tmp_path: Path) -> None:
    file = tmp_path / "picture.png"
    Image.fromarray(RGB).save(file)
    kinds = [file, str(file), Image.open(file), Image.fromarray(RGB), RGB, RGB / 255, (RGB / 255).astype("f")]
    kinds += [np.dstack([RGB, np.full((5, 7), 255, np.uint8)]), np.asfortranarray(RGB)]
    for kind in kinds:
        found = as_image(kind)
        assert found.dtype == np.uint8
        assert np.array_equal(found, RGB)
        assert content_id(found) == content_id(RGB)
    assert content_id(RGB) != content_id(RGB[::-1])
    assert content_id(RGB) != content_id(RGB.reshape(7, 5, 3))


def test_grey_is_three_equal_channels() -> None:
    grey = RGB[..., 0]
    for kind in (grey, grey[..., None], grey / 255, Image.fromarray(grey)):
        assert np.array_equal(as_image(kind), np.dstack([grey] * 3))


def test_transparency_is_laid_on_white() -> None:
    alpha = np.full((5, 7), 51, np.uint8)  # a fifth
    expected = np.rint(RGB * 0.2 + 255 * 0.8)
    assert np.abs(as_image(np.dstack([RGB, alpha])) - expected).max() <= 1
    grey = np.dstack([RGB[..., 0], alpha])
    assert np.abs(as_image(grey) - expected[..., :1]).max() <= 1


def test_a_picture_is_turned_upright(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # shown after a quarter turn clockwise
    Image.fromarray(RGB).save(tmp_path / "turned.png", exif=exif)
    for kind in (tmp_path / "turned.png", Image.open(tmp_path / "turned.png")):
        assert np.array_equal(as_image(kind), np.rot90(RGB, -1))


def test_what_was_given_can_change_afterwards() -> None:
    given = RGB.copy()
    found = as_image(given)
    given[:] = 0
    assert np.array_equal(found, RGB)
    found[:] = 0  # and is no read-only view


@pytest.mark.parametrize(
    ("image", "told"),
    [
        ("missing.png", "no file at missing.png"),
        (None, "path, PIL image or array, found NoneType"),
        (torch.zeros(3, 4, 4), "found Tensor"),
        (np.zeros((4,), np.uint8), r"found uint8 \(4,\)"),
        (np.zeros((3, 8, 9), np.uint8), r"found uint8 \(3, 8, 9\)"),
        (np.zeros((4, 0, 3), np.uint8), r"found uint8 \(4, 0, 3\)"),
        (np.zeros((4, 4), np.uint16), "found uint16"),
        (np.full((4, 4), 255.0), "0..1, found 255..255"),
        (np.full((4, 4), np.nan), "found nan"),
        (Image.new("I;16", (4, 4)), "mode I;16"),
        (Image.new("F", (4, 4)), "mode F"),
        (Image.new("RGB", (0, 4)), "0x4"),
    ],
)
def test_what_is_no_image_is_one_line(image: object, told: str) -> None:
    with pytest.raises(ImageError, match=told) as error:
        as_image(image, "source")  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


def test_a_truncated_file_is_found_out_however_it_comes(tmp_path: Path) -> None:
    file = tmp_path / "cut.png"
    Image.fromarray(image_of(0, 90, 90)).save(file)
    file.write_bytes(file.read_bytes()[:200])
    for kind in (file, Image.open(file)):
        with pytest.raises(ImageError, match="readable"):
            as_image(kind)


METHODS = sorted(path.stem for path in (config_folder() / "method").glob("*.yaml"))


@pytest.mark.parametrize("name", METHODS)
def test_an_option_is_what_hydra_composes(name: str) -> None:
    with hydra.initialize_config_dir(str(config_folder()), version_base="1.3"):
        root = hydra.compose(overrides=[f"+method={name}", "+attention=mean", "+seed=7"])
    loaded = load_option("method", name, {"attention": load_option("attention", "mean"), "seed": 7})
    assert OmegaConf.to_container(loaded, resolve=True) == OmegaConf.to_container(root.method, resolve=True)


def test_presets_are_of_the_wanted_class() -> None:
    with pytest.raises(
        UnknownNameError, match=r"'dift'; known: packed, prompt_fit, prompt_fit_paper, prompt_fit_ref"
    ):
        load_preset("dift", "PromptFit", {})
    with pytest.raises(
        UnknownNameError, match="'prompt_fit'; known: diffseg, diffseg_auto, diffseg_paper, diffseg_reference"
    ):
        load_preset("prompt_fit", "DiffSeg", {})
    with pytest.raises(UnknownNameError, match=r"unknown attention 'none'; known: entropy, .*, mean, "):
        load_option("attention", "none")


def test_changes_reach_every_section_that_has_the_key() -> None:
    root = OmegaConf.create({"attention": {"heads": None}})
    node = OmegaConf.create({"fit": {"steps": 3, "lr": 0.1}, "transfer": {"lr": "${..fit.lr}", "seed": 0}})
    root.node = node
    override([root.node.fit, root.node.transfer, root.attention], {"lr": 2, "heads": [0, 1], "steps": 0})
    assert root == {
        "attention": {"heads": [0, 1]},
        "node": {"fit": {"steps": 0, "lr": 2}, "transfer": {"lr": 2, "seed": 0}},
    }


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"stepz": 1}, "unknown setting 'stepz'; known: lr, steps"),
        ({"seed": 1}, "unknown setting 'seed'"),
        ({"_target_": "os.system"}, "unknown setting '_target_'"),
        ({"steps": "many"}, "steps as a whole number such as 3, found 'many'"),
        ({"steps": 2.5}, "found 2.5"),
        ({"lr": "fast"}, "lr as a number such as 0.1, found 'fast'"),
        ({"lr": object()}, "plain value such as 0.1, found object"),
    ],
)
def test_a_change_that_means_nothing_is_one_line(change: dict[str, object], told: str) -> None:
    section = OmegaConf.create({"_target_": "x", "steps": 3, "lr": 0.1, "seed": 0, "name": "a"})
    with pytest.raises(DiffcorrError, match=told) as error:
        override([section], change)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "device", "dtype", "told"),
    [
        ("tinny", "cpu", "float32", "unknown backbone 'tinny'; known: tiny, sd14"),
        ("local", "cpu", "float32", "unknown backbone 'local'"),
        ("a/b/c", "cpu", "float32", "unknown backbone 'a/b/c'"),
        (".", "cpu", "float32", "expected a diffusers model"),
        ("tiny", "quantum", "float32", "expected a device .* found 'quantum'"),
    ],
)
def test_a_model_that_is_not_there_is_one_line(name: str, device: str, dtype: str, told: str) -> None:
    with pytest.raises(DiffcorrError, match=told) as error:
        load_backbone(name, device, dtype)
    assert "\n" not in str(error.value)
