"""What every variant in configs/attention has to keep, whoever adds it."""

import pytest
import torch
from omegaconf import OmegaConf

from diffcorr.attention import AttentionVariant, capture
from diffcorr.config import config_folder, instantiate
from tests.helpers.tiny_models import NUM_TOKENS, WIDTH, tiny_backbone

CONFIGS = sorted((config_folder() / "attention").glob("*.yaml"))


@pytest.fixture(params=CONFIGS, ids=lambda path: path.stem)
def variant(request: pytest.FixtureRequest) -> AttentionVariant:
    return instantiate(OmegaConf.load(request.param))


def test_there_are_variants() -> None:
    assert {"mean", "reference"} <= {path.stem for path in CONFIGS}


@pytest.mark.parametrize(("kind", "token"), [("cross", 1), ("cross", None), ("self", None)])
def test_contract(variant: AttentionVariant, kind: str, token: int | None) -> None:
    backbone = tiny_backbone()
    before = {name: module.processor for name, module in backbone.attention_modules().items()}
    generator = torch.Generator().manual_seed(0)
    latents = torch.randn(3, 4, 8, 8, generator=generator)
    embeds = torch.randn(3, NUM_TOKENS, WIDTH, generator=generator).requires_grad_()
    runs = []
    for _ in range(2):
        with capture(backbone, "all", kind, variant=variant, token=token) as maps:  # type: ignore[arg-type]
            backbone.denoise(latents, 140, embeds)
        runs.append([found.tensor for found in maps.values()])
    for first, second, found in zip(*runs, maps.values(), strict=True):
        pixels = found.size[0] * found.size[1]
        columns = {"self": (pixels,), "cross": () if token is not None else (NUM_TOKENS,)}[kind]
        assert tuple(first.shape) == (3, pixels, *columns)
        assert first.dtype == torch.float32
        assert torch.isfinite(first).all()
        assert torch.equal(first, second)
        if variant.bounded:
            assert first.min() >= 0
            assert first.max() <= 1
    (gradient,) = torch.autograd.grad(torch.stack([m.square().sum() for m in runs[0]]).sum(), embeds)
    assert torch.isfinite(gradient).all()
    assert gradient.abs().sum() > 0
    assert not any(p.requires_grad for p in backbone.parameters())

    with pytest.raises(ZeroDivisionError), capture(backbone, "all", kind, variant=variant, token=token):  # type: ignore[arg-type]
        raise ZeroDivisionError
    assert all(module.processor is before[name] for name, module in backbone.attention_modules().items())


def test_says_what_it_is(variant: AttentionVariant) -> None:
    """The text of a variant is part of a fit's identity: it must not carry an address in memory."""
    assert "0x" not in repr(variant)


def test_the_docs_name_it() -> None:
    page = (config_folder().parent / "docs" / "attention.md").read_text()
    assert [path.stem for path in CONFIGS if f"| `{path.stem}` |" not in page] == []
