"""Word maps against the softmax computed from plain forward hooks."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from diffcorr.attention.words import phrase_maps, word_maps
from diffcorr.backbones import LatentBackbone, UNetBackbone
from diffcorr.errors import UnknownNameError
from tests.helpers.tiny_models import save_tiny_family, save_tiny_pipeline


@pytest.fixture(scope="module")
def backbone(tmp_path_factory):
    return UNetBackbone.from_pretrained(save_tiny_pipeline(tmp_path_factory.mktemp("toy")))


def test_word_maps_are_the_softmax_columns_of_the_read_layers(backbone):
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    words, maps = word_maps(backbone, image, "red a", timestep=100, num_draws=1, seed=3)
    assert words == ["red", "a"]
    assert maps.shape == (2, 32, 32)

    seen: dict[str, dict[str, torch.Tensor]] = {}
    handles = []
    layers = backbone.resolve_layers("cross", "paper")
    for layer in layers:
        module = backbone.attention_modules()[layer.name]
        for part in ("to_q", "to_k"):

            def keep(_, __, out, name=layer.name, part=part):
                seen.setdefault(name, {})[part] = out

            handles.append(getattr(module, part).register_forward_hook(keep))
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 127.5 - 1
    with torch.no_grad():
        latent = backbone.vae.encode(pixels).latent_dist.mean * backbone.vae.config["scaling_factor"]
        noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(3))
        alpha = backbone.alphas_cumprod[100].float()
        ids = backbone.tokenizer(
            "red a", padding="max_length", max_length=backbone.embedding_shape[0], return_tensors="pt"
        ).input_ids
        prompt = backbone.text_encoder(ids).last_hidden_state
        backbone.unet(alpha.sqrt() * latent + (1 - alpha).sqrt() * noise, 100, prompt)
    for handle in handles:
        handle.remove()
    expected = torch.zeros(2, 32, 32)
    for layer in layers:
        q, k = seen[layer.name]["to_q"][0], seen[layer.name]["to_k"][0]
        width = q.shape[-1] // layer.num_heads
        mean = torch.zeros(q.shape[0], k.shape[0])
        for head in range(layer.num_heads):
            part = slice(head * width, (head + 1) * width)
            mean += (q[:, part] @ k[:, part].T / width**0.5).softmax(-1) / layer.num_heads
        side = round(q.shape[0] ** 0.5)
        columns = mean[:, 1:3].T.reshape(1, 2, side, side)
        expected += F.interpolate(columns, size=(32, 32), mode="bilinear")[0] / len(layers)
    assert torch.allclose(maps, expected, atol=1e-5)


def test_an_empty_caption_has_no_words(backbone):
    words, maps = word_maps(backbone, np.zeros((8, 8, 3), np.uint8), "", num_draws=1)
    assert words == []
    assert maps.shape == (0, 32, 32)


@pytest.mark.parametrize("family", ["pixart", "sd3", "flux"])
def test_words_of_other_tokenizers(family, tmp_path):
    """T5's words begin with a mark where CLIP's end with one; the toy's tokens are letters, but for red."""
    backbone = LatentBackbone.from_pretrained(save_tiny_family(tmp_path, family), image_size=32)
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    options = {"num_draws": 2, "seed": 3, "layers": "all", "timestep": 140}
    tokens, maps = word_maps(backbone, image, "red ab red", **options)
    assert tokens == ["red", "a", "b", "red"]
    found = phrase_maps(backbone, image, ["red", "ab", "ab red"], "red ab red", **options)
    torch.testing.assert_close(found[0], (maps[0] + maps[3]) / 2)
    torch.testing.assert_close(found[1], (maps[1] + maps[2]) / 2)
    torch.testing.assert_close(found[2], maps[1:].mean(0))
    with pytest.raises(UnknownNameError, match="unknown word of the caption 'b'; known: red, ab"):
        phrase_maps(backbone, image, ["b"], "red ab red", **options)
    (alone,) = phrase_maps(backbone, image, ["ab"], template="red {} red", **options)
    torch.testing.assert_close(alone, found[1])
