"""What can be chosen in a fit and in a transfer. Lengths are fractions of the image side."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from math import isqrt
from typing import Literal

from diffcorr.attention.capture import Trunk
from diffcorr.backbones.base import Backbone, LayerSpec
from diffcorr.correspondence.draws import Noise
from diffcorr.errors import DiffcorrError


@dataclass(frozen=True)
class FitConfig:
    """How prompt embeddings are fitted (Hedlin et al. 2023, section 3.2).

    Attributes:
        steps: Adam steps.
        lr: learning rate of Adam.
        sigma: standard deviation of the Gaussian target.
        crop: side of the random crops.
        margin: distance that a crop keeps between the query and its border where possible, as a
            fraction of the crop's side.
        flip_prob: probability that a crop is mirrored.
        rounds: independent random initialisations of each query.
        token: the prompt token whose map is fitted.
        layers: cross-attention layers that are read, see ``Backbone.resolve_layers``.
        timestep: noise level, 0..999 of the training schedule.
        noise: ``'gaussian'``, or ``'uniform'`` in [0, 1) as in the authors' program.
        init: ``'gaussian'``; ``'text'``: the embedding of ``init_text`` plus Gaussian noise; or
            ``'features'``: like ``'text'``, but the fitted tokens are solved for (`features_start`).
        init_crops: passes from which ``init='features'`` solves.
        init_ridge: how strongly that solution is held near 0, as a fraction of the equations' mean
            diagonal; the more crops, the less it needs.
        init_scale: standard deviation of the initial Gaussian.
        init_text: text of ``init='text'`` and ``'features'``; empty, it keeps the other tokens where the
            model expects them without saying anything.
        loss_resolution: side in pixels at which map and target are compared; None = the side of
            the largest map that is read.
        loss: ``'mean_map'``: squared error of the mean over layers (the paper, equation 4);
            ``'per_layer'``: mean of the layers' squared errors (the authors' program).
        pixel_centre: where in a pixel of the target the Gaussian is evaluated: 0.5 its centre, 0
            its corner (the authors' program).
        frame: ``'stretch'`` or ``'letterbox'``: how an image becomes a square.
        side: side of that square in pixels, from which crops are taken; None = the backbone's.
        share: what has a prompt of its own: ``'none'``: every query and round (the papers);
            ``'round'``: the queries of an image share one prompt in each round, every query fits a
            token of its own; ``'image'``: all rounds share it too, each on further tokens.
        spare_tokens: tokens of a shared prompt that belong to no query, beside those before
            ``token``; what no query claims may flow to them. Many queries of an image are split
            into prompts of equal size.
        trunk: ``'prompt'``: the model follows the fitted prompt on its way to the layers that are read (the
            papers); ``'null'``: it follows the empty prompt, and only the reading knows the fitted one,
            so that one pass forward serves all prompts that see a crop and none runs backward.
        views: ``'prompt'``: each prompt draws crops and noise of its own (the papers); ``'image'``: all
            prompts of an image and round see the same crops, drawn anywhere; a query that a crop does
            not show is left out of that step.
        stop_patience: a prompt whose loss, averaged over this many steps, has not fallen by
            ``stop_tolerance`` of its value since the same number of steps before is not fitted
            further; 0: never.
        stop_tolerance: see ``stop_patience``.
        bank_size: crops of an image that are encoded once and shared by all its items; drawn
            positions snap to the nearest of them. At least (side - crop + 1)^2 changes nothing
            but speed; 0 encodes every crop of every step anew.
        pack_size: prompts that are fitted together; ``'auto'``: what the device's memory holds.
        stop_early: run nothing after the last layer that is read; changes nothing but speed.
        seed: of all random numbers, together with the query and the round.
    """

    steps: int = 129
    lr: float = 0.0023755632081200314
    sigma: float = 27.97853316316864 / 512
    crop: float = 0.9316549294381423
    margin: float = 0.15
    flip_prob: float = 0.0
    rounds: int = 5
    token: int = 1
    layers: LayerSpec = "paper"
    timestep: int = 140
    noise: Noise = "gaussian"
    init: Literal["gaussian", "text", "features"] = "gaussian"
    init_crops: int = 4
    init_ridge: float = 0.01
    init_scale: float = 1.0
    init_text: str = ""
    loss_resolution: int | None = 512
    loss: Literal["mean_map", "per_layer"] = "mean_map"
    pixel_centre: float = 0.5
    frame: Literal["stretch", "letterbox"] = "stretch"
    side: int | None = None
    share: Literal["none", "round", "image"] = "none"
    spare_tokens: int = 0
    trunk: Trunk = "prompt"
    views: Literal["prompt", "image"] = "prompt"
    stop_patience: int = 0
    stop_tolerance: float = 0.01
    bank_size: int = 4096
    pack_size: int | Literal["auto"] = "auto"
    stop_early: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        _between(self, steps=(0, None), rounds=(1, None), init_crops=(1, None), bank_size=(0, None))
        _between(self, spare_tokens=(0, None), stop_patience=(0, None), stop_tolerance=(0, 1))
        _check_bank(self)
        _check_auto(self, "pack_size")
        _between(self, crop=(0.01, 1), margin=(0, 0.5), flip_prob=(0, 1), pixel_centre=(0, 1))
        _between(self, sigma=(1e-6, None), lr=(0, None), init_scale=(0, None), init_ridge=(1e-9, None))
        _one_of(self, noise=("gaussian", "uniform"), init=("gaussian", "text", "features"))
        _one_of(self, loss=("mean_map", "per_layer"), frame=("stretch", "letterbox"))
        _one_of(self, share=("none", "round", "image"), trunk=("prompt", "null"), views=("prompt", "image"))
        object.__setattr__(self, "layers", _plain_layers(self.layers))

    def identity(self) -> dict[str, object]:
        """What an embedding depends on: not on how it is computed, nor on the rounds beside it."""
        values = dataclasses.asdict(self)
        beside = {"pack_size", "stop_early"} | (set() if self.share == "image" else {"rounds"})
        return {key: value for key, value in values.items() if key not in beside}

    def check(self, backbone: Backbone) -> None:
        """Raise what would fail on this backbone, before any work is done."""
        _check(self, backbone)
        if self.init == "features" and not backbone.prompt_is_context:
            raise DiffcorrError(
                f"expected a U-Net for init=features, found {backbone.name}: use init=text or init=gaussian"
            )
        if self.share != "none" and self.queries_per_prompt(backbone) < 1:
            raise DiffcorrError(
                f"expected room for a query in a prompt of {backbone.embedding_shape[0]} tokens, found none: "
                "lower rounds, token or spare_tokens"
            )

    def queries_per_prompt(self, backbone: Backbone) -> int:
        """How many queries one prompt holds."""
        if self.share == "none":
            return 1
        room = backbone.embedding_shape[0] - self.token - self.spare_tokens
        return room // (self.rounds if self.share == "image" else 1)

    def items_per_prompt(self, backbone: Backbone) -> int:
        """How many tokens of one prompt are fitted, at most."""
        return self.queries_per_prompt(backbone) * (self.rounds if self.share == "image" else 1)


@dataclass(frozen=True)
class TransferConfig:
    """How a fitted embedding is read in the target (Hedlin et al. 2023, section 3.3).

    Attributes:
        timestep, noise, token, layers, crop, margin, frame, side, trunk, seed: as in ``FitConfig``.
        crops: ``'follow'``: the first four crops lie in the image's corners, each further one around
            the maximum of the mean of those before it (the papers); ``'grid'``: on a square grid,
            with the same noise for all queries, so that one pass serves all that share a prompt.
        num_crops: how many; of a grid a square number.
        num_noises: how many times each crop of a grid is read, each time with a noise of its own.
        readout: ``'mean'`` of the layers' maps (the paper), or ``'softmax_mean'``: a softmax over
            the pixels of each layer's map first (the authors' program).
        bank_size: crops that follow the maximum snap to the nearest of so many on a grid, of which
            each is encoded at most once for all queries; 0: they stay where they were drawn.
        batch_size: prompts that are run together; ``'auto'``: what the device's memory holds.
        stop_early: run nothing after the last layer that is read; changes nothing but speed.
    """

    timestep: int = 140
    noise: Noise = "gaussian"
    token: int = 1
    layers: LayerSpec = "paper"
    crops: Literal["follow", "grid"] = "follow"
    num_crops: int = 20
    num_noises: int = 1
    crop: float = 0.9316549294381423
    margin: float = 0.15
    trunk: Trunk = "prompt"
    readout: Literal["mean", "softmax_mean"] = "mean"
    frame: Literal["stretch", "letterbox"] = "stretch"
    side: int | None = None
    bank_size: int = 0
    batch_size: int | Literal["auto"] = "auto"
    stop_early: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        _between(self, num_crops=(1, None), num_noises=(1, None), bank_size=(0, None))
        _between(self, crop=(0.01, 1), margin=(0, 0.5))
        _check_bank(self)
        _check_auto(self, "batch_size")
        _one_of(self, crops=("follow", "grid"))
        if self.crops == "grid" and isqrt(self.num_crops) ** 2 != self.num_crops:
            raise DiffcorrError(f"expected a square number of grid crops, found {self.num_crops}: use 4 or 9")
        if self.crops != "grid" and self.num_noises > 1:
            raise DiffcorrError(
                f"expected num_noises 1 where crops follow, found {self.num_noises}: use crops=grid"
            )
        _one_of(self, noise=("gaussian", "uniform"), readout=("mean", "softmax_mean"))
        _one_of(self, frame=("stretch", "letterbox"), trunk=("prompt", "null"))
        object.__setattr__(self, "layers", _plain_layers(self.layers))

    def check(self, backbone: Backbone) -> None:
        """Raise what would fail on this backbone, before any work is done."""
        _check(self, backbone)


def _plain_layers(layers: LayerSpec) -> LayerSpec:
    return layers if isinstance(layers, str) else tuple(layers)


def _between(config: object, **bounds: tuple[float, float | None]) -> None:
    for name, (low, high) in bounds.items():
        value = getattr(config, name)
        if not low <= value <= (float("inf") if high is None else high):
            wanted = f"at least {low}" if high is None else f"in {low}..{high}"
            raise DiffcorrError(f"expected {name} {wanted}, found {value}")


def _check_bank(config: FitConfig | TransferConfig) -> None:
    if 0 < config.bank_size < 4:
        raise DiffcorrError(
            f"expected bank_size 0 or at least 4 (the corners), found {config.bank_size}: use 0 for none"
        )


def _check_auto(config: object, name: str) -> None:
    value = getattr(config, name)
    if value != "auto" and not (isinstance(value, int) and value >= 1):
        raise DiffcorrError(f"expected {name} 'auto' or at least 1, found {value!r}")


def _one_of(config: object, **choices: tuple[str, ...]) -> None:
    for name, allowed in choices.items():
        if getattr(config, name) not in allowed:
            raise DiffcorrError(f"expected {name} of {', '.join(allowed)}, found {getattr(config, name)!r}")


def _check(config: FitConfig | TransferConfig, backbone: Backbone) -> None:
    backbone.resolve_layers("cross", config.layers)
    num_tokens = backbone.embedding_shape[0]
    if not 0 <= config.token < num_tokens:
        raise DiffcorrError(
            f"expected a token in 0..{num_tokens - 1} of {backbone.name}, found {config.token}"
        )
    if not 0 <= config.timestep < 1000:
        raise DiffcorrError(f"expected a timestep in 0..999, found {config.timestep}")
