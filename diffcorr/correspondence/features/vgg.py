"""Features of VGG19 (Simonyan and Zisserman, ICLR 2015): its convolutions, without the classifier."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from diffcorr.correspondence.features.base import FeatureSource
from diffcorr.correspondence.features.imagenet import imagenet_pixels
from diffcorr.errors import BackboneError, UnknownNameError
from diffcorr.types import UInt8Image

BLOCKS = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4))
"""Channels and number of convolutions of each block (configuration E of the paper)."""


class VGG19(nn.Module):
    """The first ``depth`` layers, with torchvision's names of parameters (``features.0.weight``)."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.features = nn.Sequential(*islice(_layers(), depth))

    def forward(self, images_BCHW: Tensor) -> Tensor:
        """Output of the last layer for normalised images."""
        features: Tensor = self.features(images_BCHW)
        return features


def _layers() -> Iterator[nn.Module]:
    before = 3
    for channels, number in BLOCKS:
        for _ in range(number):
            yield nn.Conv2d(before, channels, 3, padding=1)
            yield nn.ReLU(inplace=True)
            before = channels
        yield nn.MaxPool2d(2)


def layer_names() -> list[str]:
    """Names of the layers in their order: conv1_1, relu1_1, ..., relu5_4, pool5."""
    names = []
    for block, (_, number) in enumerate(BLOCKS, 1):
        names += [f"{kind}{block}_{i}" for i in range(1, number + 1) for kind in ("conv", "relu")]
        names.append(f"pool{block}")
    return names


class VGGFeatures(FeatureSource):
    """Output of one layer of VGG19, trained for classification on ImageNet.

    Args:
        path: safetensors file with torchvision's names; what is not ``features.*`` is left alone.
        layer: a name of `layer_names`, such as ``relu4_1``.
        side: images are stretched to this square, in pixels.
        weights: ``random`` takes seeded random numbers instead of a file.
        device: where to compute.
        cache_size: images whose features are kept.

    Raises:
        UnknownNameError: no such layer or kind of weights.
        BackboneError: no file, or one that does not hold these weights.
    """

    def __init__(
        self,
        path: str | None = None,
        layer: str = "relu4_1",
        side: int = 448,
        weights: Literal["pretrained", "random"] = "pretrained",
        device: str | torch.device = "cpu",
        cache_size: int = 32,
    ) -> None:
        super().__init__(side, cache_size=cache_size)
        if layer not in (names := layer_names()):
            raise UnknownNameError("layer of VGG19", layer, names)
        if weights not in ("pretrained", "random"):
            raise UnknownNameError("weights", weights, ["pretrained", "random"])
        depth = names.index(layer) + 1
        if side < (least := 2 ** sum(name.startswith("pool") for name in names[:depth])):
            raise BackboneError(f"expected a side of at least {least} for {layer}, found {side}: raise side")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.model = VGG19(depth).requires_grad_(False).eval()
        if weights == "pretrained":
            self.model.load_state_dict(_read(path, self.model))
        self.model.to(device)

    def compute(self, image: UInt8Image, key: str, prompt: str) -> Tensor:
        """Features of one image."""
        pixels = imagenet_pixels(image, self.side).to(next(self.model.parameters()))
        features: Tensor = self.model(pixels[None])[0].float()
        return features


def _read(path: str | None, model: nn.Module) -> dict[str, Tensor]:
    if not path or not Path(path).is_file():
        found = f"no file {str(path)!r}" if path else "none"
        raise BackboneError(
            f"expected a safetensors file of VGG19 as features.path, found {found}: "
            "docs/methods.md says where to get one"
        )
    try:
        stored = load_file(path)
    except (SafetensorError, OSError) as error:
        reason = " ".join(str(error).split())
        raise BackboneError(
            f"expected safetensors in {path}, found: {reason}: convert the weights first (docs/methods.md)"
        ) from error
    wanted = model.state_dict()
    for name, tensor in wanted.items():
        found_shape = tuple(stored[name].shape) if name in stored else "none"
        if found_shape != tuple(tensor.shape):
            raise BackboneError(
                f"expected {name} of shape {tuple(tensor.shape)} in {path}, found {found_shape}: "
                "give VGG19 without batch normalisation, with torchvision's names"
            )
    return {name: stored[name] for name in wanted}
