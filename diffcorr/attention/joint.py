"""The blocks of joint attention between text and image (SD3, FLUX), each by itself."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from diffcorr.attention.base import AttentionRead, AttentionVariant
from diffcorr.attention.recorders import JointRead
from diffcorr.errors import DiffcorrError, LayerError

Direction = Literal["image_to_text", "text_to_image"]


class JointAttention(AttentionVariant):
    """Mean over heads of one block of the joint attention, normalised by itself.

    In joint attention (Esser et al. 2024, section 4) a pixel divides its attention between all tokens and
    all pixels, so that what it leaves for a token is small and differs from pixel to pixel; `mean` reads it
    as it is. Here the pixels of the image compete with no one:

    - ``image_to_text``: the softmax of each pixel over the tokens alone, which is what cross-attention is;
      on a model with cross-attention it equals `mean`.
    - ``text_to_image``: the softmax of each token over the pixels alone, peak 1; joint attention only.

    Args:
        direction: which block.

    Raises:
        DiffcorrError: an unknown direction.
    """

    def __init__(self, direction: Direction = "image_to_text") -> None:
        if direction not in ("image_to_text", "text_to_image"):
            raise DiffcorrError(f"expected image_to_text or text_to_image, found {direction!r}")
        self.direction = direction

    def __repr__(self) -> str:
        return f"JointAttention(direction={self.direction!r})"

    def __call__(self, read: AttentionRead) -> Tensor:
        """Values in [0, 1], (B, N) of the wanted token, (B, N, T) of several or (B, N, M)."""
        if self.direction == "image_to_text" or read.kind == "self":
            return read.pick(read.scores.softmax(-1)).mean(1)
        if not isinstance(read, JointRead) or read.asking is None or read.rest is None:
            raise LayerError(
                "expected joint attention for direction=text_to_image (SD3, FLUX), found cross-attention: "
                "use direction=image_to_text"
            )
        asking = AttentionRead(read.asking, read.rest, read.scale, "self").scores
        probs = (asking - asking.amax(-1, keepdim=True)).exp()
        return read.pick(probs.transpose(-1, -2)).mean(1)
