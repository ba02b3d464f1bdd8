"""Words for segments: the maths by hand, maps against word maps, and the public faces."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertTokenizer, BlipConfig, BlipForConditionalGeneration, BlipProcessor

from diffcorr.attention.words import phrase_maps, word_maps
from diffcorr.backbones.unet import UNetBackbone
from diffcorr.config import load_option
from diffcorr.errors import BackboneError, DiffcorrError, UnknownNameError
from diffcorr.segmentation import KMeansPixels, WordLabels
from diffcorr.segmentation.captioner import Captioner
from diffcorr.segmentation.word_labels import caption_words, mentions, name_segments
from diffcorr.segmenter import Segmenter
from tests.helpers.tiny_models import save_tiny_pipeline

try:  # the one without torchvision has another name in version 5
    from transformers.models.blip.image_processing_pil_blip import BlipImageProcessorPil as ImageProcessor
except ModuleNotFoundError:
    from transformers import BlipImageProcessor as ImageProcessor

IMAGE = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)


def test_readings_by_hand():
    mask = torch.tensor([[0, 0, 1, 3]])
    maps = torch.tensor([[[0.9, 0.5, 0.8, 0.9]], [[0.1, 0.8, 0.6, 0.0]], [[0.0, 0.0, 0.1, 0.2]]])
    # means of segment 0: 0.7, 0.45, 0; of segment 1: 0.8, 0.6, 0.1; of segment 3: 0.9, 0, 0.2
    assert name_segments(mask, maps, "mean")[[0, 1, 3]].tolist() == [0, 0, 0]
    # divided by 0.775, 0.375, 0.075: 0.90, 1.2, 0; 1.03, 1.6, 1.33; 1.16, 0, 2.67
    assert name_segments(mask, maps, "relative")[[0, 1, 3]].tolist() == [1, 1, 2]
    # the highest word of the pixels: 0, 1 | 0 | 0, of which the lower median counts
    assert name_segments(mask, maps, "median")[[0, 1, 3]].tolist() == [0, 0, 0]
    assert name_segments(mask, maps.flip(0), "median")[[0, 1, 3]].tolist() == [1, 2, 2]


def test_a_word_that_no_pixel_attends_to_breaks_nothing():
    maps = torch.stack([torch.zeros(2, 2), torch.full((2, 2), 0.1)])
    for reading in ("relative", "mean", "median"):
        assert name_segments(torch.zeros(5, 7, dtype=torch.int64), maps, reading).tolist() == [1]  # type: ignore[arg-type]


def test_words_of_a_caption():
    assert caption_words("A photo of two dogs, and a T-shirt on the grass.") == ["dogs", "t-shirt", "grass"]
    assert mentions("a red Fire truck, parked", "fire truck")
    assert not mentions("a cart", "car")


def test_tokens_of_a_phrase_are_averaged_where_the_caption_has_it(backbone: UNetBackbone):
    # the toy's tokens are letters: "ab" is two tokens, "red" one
    caption = "red ab red"
    options = {"timestep": 100, "num_draws": 2, "seed": 3}
    tokens, maps = word_maps(backbone, IMAGE, caption, **options)
    assert tokens == ["red", "a", "b", "red"]
    found = phrase_maps(backbone, IMAGE, ["red", "ab", "ab red"], caption, **options)
    assert torch.allclose(found[0], (maps[0] + maps[3]) / 2, atol=1e-6)
    assert torch.allclose(found[1], (maps[1] + maps[2]) / 2, atol=1e-6)
    assert torch.allclose(found[2], maps[1:].mean(0), atol=1e-6)
    with pytest.raises(UnknownNameError, match="unknown word of the caption 'b'; known: red, ab"):
        phrase_maps(backbone, IMAGE, ["b"], caption)


def test_without_a_caption_each_word_has_a_prompt_of_its_own(backbone: UNetBackbone):
    alone = [phrase_maps(backbone, IMAGE, [word], template="a {}")[0] for word in ("red", "xy")]
    together = phrase_maps(backbone, IMAGE, ["red", "xy"], template="a {}")
    assert torch.allclose(together, torch.stack(alone), atol=1e-6)
    # the probabilities of a prompt's tokens sum to 1 at each pixel, so those of a word stay below
    assert float(together.min()) > 0
    assert float(together.max()) < 1
    for template in ("a", "{} {}", "{x} {}"):
        with pytest.raises(DiffcorrError, match=r"expected a template with one \{\}"):
            phrase_maps(backbone, IMAGE, ["red"], template=template)
    with pytest.raises(DiffcorrError, match="none of them empty"):
        phrase_maps(backbone, IMAGE, ["red", " "])


def test_captions_choose_the_words(backbone: UNetBackbone):
    method = WordLabels(
        grouper=KMeansPixels(), words=("red", "ab", "c", "d"), captions="data", template="a {}"
    )
    images = [IMAGE, IMAGE[:20, ::-1].copy()]
    masks = method.segment(images, backbone=backbone, num_segments=[4, 3], captions=["c red", "no such"])
    assert [mask.shape for mask in masks] == [(32, 32), (20, 32)]
    assert set(np.unique(masks[0])) <= {0, 2}
    # a caption without any of the words is as none
    (plain,) = replace(method, captions=None).segment(images[1:], backbone=backbone, num_segments=[3])
    assert np.array_equal(masks[1], plain)
    # each segment has one word
    (segments,) = KMeansPixels().segment([IMAGE], num_segments=[4])
    for k in range(4):
        assert len(np.unique(masks[0][segments == k])) == 1
    with pytest.raises(DiffcorrError, match="a caption with each image"):
        method.segment(images, backbone=backbone, num_segments=[4, 3])
    with pytest.raises(DiffcorrError, match="expects words to choose from"):
        replace(method, words=None).segment(images, backbone=backbone, num_segments=[4, 3])
    with pytest.raises(BackboneError, match="needs a backbone"):
        method.segment(images, num_segments=[4, 3])


def test_chance_draws_from_the_words_and_depends_on_seed_and_image_only(backbone: UNetBackbone):
    method = WordLabels(grouper=KMeansPixels(), words=tuple("abcdefgh"), reading="chance")

    def named(seed: int, images: list[np.ndarray]) -> list[list[int]]:
        masks = replace(method, seed=seed).segment(images, backbone=backbone, num_segments=[6] * len(images))
        return [mask.ravel().tolist() for mask in masks]

    other = IMAGE[::-1].copy()
    assert named(0, [IMAGE, other]) == named(0, [other, IMAGE])[::-1]
    assert named(0, [IMAGE]) != named(1, [IMAGE])
    with pytest.raises(UnknownNameError, match="reading of word maps 'max'"):
        replace(method, reading="max")  # type: ignore[arg-type]


def test_a_config_may_hold_another_under_a_key():
    node = load_option("method", "diffseg_caption_chance", {"seed": 5})
    assert (node.name, node.captions, node.reading, node.seed) == (
        "diffseg_caption_chance",
        "data",
        "chance",
        5,
    )
    assert node.grouper == load_option("method", "diffseg", {"seed": 5})


@pytest.fixture(scope="module")
def blip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BLIP of the real classes."""
    folder = tmp_path_factory.mktemp("blip")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz", "red"]
    (folder / "vocab.txt").write_text("\n".join(words))
    tokenizer = BertTokenizer(str(folder / "vocab.txt"))
    text = {
        "vocab_size": len(words), "hidden_size": 16, "encoder_hidden_size": 16, "intermediate_size": 16,
        "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 64,
        "bos_token_id": 2, "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0,
    }  # fmt: skip
    vision = {
        "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "image_size": 32, "patch_size": 16,
    }  # fmt: skip
    torch.manual_seed(0)
    model = BlipForConditionalGeneration(
        BlipConfig(text_config=text, vision_config=vision, projection_dim=16)
    )
    model.save_pretrained(folder)
    BlipProcessor(ImageProcessor(size={"height": 32, "width": 32}), tokenizer).save_pretrained(folder)
    return folder


def test_a_captioner_from_a_folder(blip: Path, tmp_path: Path):
    captioner = Captioner.from_pretrained(blip)
    said = captioner(IMAGE)
    assert said
    assert said == captioner(IMAGE)
    with pytest.raises(BackboneError, match="folder or hub name owner/name, found 'nothing'"):
        Captioner.from_pretrained("nothing")
    with pytest.raises(BackboneError, match="expected a captioning model of transformers"):
        Captioner.from_pretrained(tmp_path)


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Segmenter:
    return Segmenter.from_pretrained(save_tiny_pipeline(tmp_path_factory.mktemp("model")), tau=1e-4)


def test_named_segments_through_the_public_api(segmenter: Segmenter, tmp_path: Path):
    plain = segmenter.segment(IMAGE)
    named = segmenter.segment(IMAGE, words=["red", "ab", "c"], template="a {}")
    assert named.words is not None
    assert 1 <= named.num_segments == len(named.words) <= 3
    assert len(set(named.words)) == len(named.words)
    # merged: a segment is a part of one named one
    for k in range(plain.num_segments):
        assert len(np.unique(named.mask[plain.mask == k])) == 1
    assert [s["word"] for s in json.loads(json.dumps(named.to_dict()))["segments"]] == list(named.words)
    assert "word" not in plain.to_dict()["segments"][0]
    named.plot(tmp_path / "named.png")
    assert (tmp_path / "named.png").stat().st_size > 0
    said = segmenter.segment(IMAGE, caption="a red c")
    assert set(said.words or ()) <= {"red", "c"}
    assert said.caption == "a red c"
    assert set(segmenter.segment(IMAGE, caption="a red c", words=["c"]).words or ()) == {"c"}


def test_a_captioning_model_gives_the_words(segmenter: Segmenter, blip: Path):
    captioner = Captioner.from_pretrained(blip)
    captioner.max_tokens = 3  # the toy's prompt has room for six letters
    said = segmenter.segment(IMAGE, captioner=captioner)
    assert said.caption == captioner(IMAGE)
    assert said.words
    assert set(said.words) <= set(caption_words(said.caption))


def test_wrong_words_are_one_line(segmenter: Segmenter, blip: Path):
    for options, told in (
        ({"words": "red"}, r"expected words as a list, found the text 'red': give \['red'\]"),
        ({"words": []}, "expected words to name segments by, found none"),
        ({"caption": "of the"}, "found none in 'of the'"),
        ({"caption": "a red c", "words": ["sky"]}, "unknown word of the caption 'sky'; known: red, c"),
        ({"caption": "red", "captioner": blip}, "found both: leave one out"),
    ):
        with pytest.raises(DiffcorrError, match=told) as error:
            segmenter.segment(IMAGE, **options)  # type: ignore[arg-type]
        assert "\n" not in str(error.value)
