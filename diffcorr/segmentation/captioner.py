"""Captions of images by a model of transformers, for those who have no words."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

from diffcorr.errors import BackboneError
from diffcorr.types import UInt8Image


class Captioner:
    """Says in a sentence what an image shows; the same each time (greedy decoding).

    Args:
        model: such as BLIP (Li et al., ICML 2022), which DiffSeg's demonstration uses.
        processor: of that model.
        max_tokens: bound on the length of a caption.
    """

    def __init__(self, model: Any, processor: Any, max_tokens: int = 40) -> None:
        self.model, self.processor, self.max_tokens = model.eval(), processor, max_tokens

    @classmethod
    def from_pretrained(
        cls, path_or_name: str | os.PathLike[str], device: str | torch.device = "cpu"
    ) -> Captioner:
        """A captioner from a local folder or a hub name, such as ``Salesforce/blip-image-captioning-base``.

        Weights are read from safetensors only, and no code of the folder is run.

        Raises:
            BackboneError: there is no such model, or it has no safetensors.
        """
        name = os.fspath(path_or_name)
        if not Path(name).is_dir() and (name.count("/") != 1 or name.startswith((".", "/", "~"))):
            raise BackboneError(
                f"expected a captioning model's folder or hub name owner/name, found {name!r}: check the path"
            )
        try:
            model: Any = AutoModelForImageTextToText.from_pretrained(name, use_safetensors=True)
            processor = AutoProcessor.from_pretrained(name)
        except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
            reason = " ".join(str(error).split())[:300]
            raise BackboneError(
                f"expected a captioning model of transformers (safetensors) in {name}, found: {reason}"
            ) from error
        return cls(model.to(device), processor)

    @torch.no_grad()
    def __call__(self, image: UInt8Image) -> str:
        """The caption of an RGB image (H, W, 3)."""
        inputs = self.processor(images=Image.fromarray(image), return_tensors="pt").to(self.model.device)
        ids = self.model.generate(**inputs, max_new_tokens=self.max_tokens, do_sample=False, num_beams=1)
        return str(self.processor.batch_decode(ids, skip_special_tokens=True)[0]).strip()
