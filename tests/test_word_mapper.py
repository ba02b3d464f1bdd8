"""Words of a caption through the public API, on real diffusers classes with random weights."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffcorr.attention.words import word_maps
from diffcorr.cli import main
from diffcorr.errors import DiffcorrError, UnknownNameError
from diffcorr.word_mapper import WordMapper, WordMaps, split_words
from tests.helpers.fit_reference import image_of
from tests.helpers.tiny_models import save_tiny_pipeline

IMAGE = image_of(0, 60, 40)
LAYERS = [5, 6]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_pipeline(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def maps(folder: Path) -> WordMaps:
    return WordMapper.from_pretrained(folder, layers=LAYERS).map(IMAGE, "A red c")


def test_a_word_has_the_mean_of_its_tokens_at_the_size_of_the_image(folder: Path, maps: WordMaps) -> None:
    assert maps.words == ("a", "red", "c")
    assert maps.maps.shape == (3, 40, 60)
    mapper = WordMapper.from_pretrained(folder, layers=LAYERS)
    tokens, token_maps = word_maps(mapper.backbone, IMAGE, "A red c", layers=LAYERS)
    assert tokens == ["a", "red", "c"]
    side = token_maps.shape[-1]
    for own, expected in zip(maps.maps, token_maps.numpy(), strict=True):  # cell by cell of a coarse grid
        small = Image.fromarray(own).resize((side, side), Image.Resampling.BOX)
        assert np.corrcoef(np.asarray(small).ravel(), expected.ravel())[0, 1] > 0.99
        assert own.mean() == pytest.approx(expected.mean(), rel=0.01)


def test_plain_values_and_a_picture(maps: WordMaps, tmp_path: Path) -> None:
    read = json.loads(json.dumps(maps.to_dict()))
    assert [row["word"] for row in read["words"]] == ["a", "red", "c"]
    for row, own in zip(read["words"], maps.maps, strict=True):
        x, y = row["peak"]
        assert own[int(y), int(x)] == pytest.approx(row["max"]) == pytest.approx(own.max())
    maps.plot(tmp_path / "words.png")
    with Image.open(tmp_path / "words.png") as picture:
        assert picture.format == "PNG"


def test_words_are_split_as_people_do() -> None:
    assert split_words("A well-known cat, its tail; the cat's 2 eyes.") == [
        *("a", "well-known", "cat", "its", "tail", "the", "cat's", "2", "eyes")
    ]


def test_what_has_no_words_or_too_many_is_refused(folder: Path) -> None:
    mapper = WordMapper.from_pretrained(folder, layers=LAYERS)
    with pytest.raises(DiffcorrError, match="a caption with words"):
        mapper.map(IMAGE, " ,. ")
    with pytest.raises(UnknownNameError, match="word of the caption 'g'"):
        mapper.map(IMAGE, "a b c d e f g h i")  # the encoder reads six
    with pytest.raises(DiffcorrError, match="timestep in 0"):
        WordMapper.from_pretrained(folder, timestep=1000)


def test_the_command_is_the_api(
    folder: Path, maps: WordMaps, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.fromarray(IMAGE).save(tmp_path / "a.png")
    command = ["words", str(tmp_path / "a.png"), "a red c", "--backbone", str(folder)]
    out = tmp_path / "words.png"
    assert main([*command, "--out", str(out), "--json", str(tmp_path / "words.json")]) == 0
    assert out.is_file()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["a", "red", "c"]
    read = json.loads((tmp_path / "words.json").read_text())
    assert [row["word"] for row in read["words"]] == list(maps.words)
    assert main([*command[:2], "", *command[3:]]) == 2
    assert "error: expected a caption with words" in capsys.readouterr().err
