"""Where a backbone's parts come from: a folder, a hub name, a name of the catalog, a single file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiffusionPipeline, UNet2DConditionModel
from diffusers.utils import logging as diffusers_logging
from safetensors import safe_open
from transformers.utils import logging as transformers_logging

from diffcorr.backbones.catalog import CATALOG, SD_SCHEDULE, Entry
from diffcorr.errors import BackboneError, UnknownNameError

DENOISER_FOLDERS = ("unet", "transformer")
UNET_PREFIX = "model.diffusion_model."
"""Of the U-Net's tensors in a single file."""

_LOADING_ERRORS = (OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError)
SAFE: dict[str, Any] = {"use_safetensors": True, "torch_dtype": torch.float32, "low_cpu_mem_usage": False}


@dataclass(frozen=True)
class Source:
    """A model by the name that the user gave it.

    Attributes:
        given: that name.
        path: a local folder, a hub name ``owner/name``, or a single safetensors file.
        entry: of the catalog, where the name is in it.
        config: diffusers folder that describes a single file.
    """

    given: str
    path: str
    entry: Entry | None = None
    config: str | None = None

    @classmethod
    def find(cls, path_or_name: str | Path, config: str | Path | None = None) -> Source:
        """Sort out what the user gave.

        Raises:
            UnknownNameError: neither a folder or file, nor a known name, nor of the form owner/name.
            BackboneError: a single file that is no safetensors, or that comes without ``config``.
        """
        given = str(path_or_name)
        entry = CATALOG.get(given)
        path = Path(entry.path if entry else given)
        source = cls(given, str(path), entry, None if config is None else str(config))
        if path.is_file():
            source._check_file()
        elif not path.is_dir():
            if given == "tiny":
                raise BackboneError(
                    f"expected the weights of 'tiny' in {path}, found no such folder: reinstall"
                )
            if source.path.count("/") != 1 or source.path.startswith((".", "/", "~")):
                raise UnknownNameError(
                    "backbone", given, [*CATALOG, "any diffusers folder", "a hub name owner/name"]
                )
        return source

    @property
    def is_file(self) -> bool:
        """Whether it is a single file."""
        return Path(self.path).is_file()

    @property
    def described_in(self) -> str:
        """Folder or hub name that has the parts' configurations."""
        return self.config if self.is_file and self.config is not None else self.path

    def denoiser_config(self) -> dict[str, Any]:
        """Configuration of the U-Net or transformer, with its ``_class_name``.

        Raises:
            BackboneError: there is none.
        """
        if self.entry is not None and self.entry.denoiser is not None:
            return self.entry.denoiser
        folder = Path(self.described_in)
        with self._one_line():
            if folder.is_dir():
                held = [part for part in DENOISER_FOLDERS if (folder / part / "config.json").is_file()]
            else:
                index = DiffusionPipeline.load_config(self.described_in)
                held = [part for part in DENOISER_FOLDERS if index.get(part)]
        missing = [] if held else [" or ".join(f"{part}/config.json" for part in DENOISER_FOLDERS)]
        if held and folder.is_dir() and not (folder / "vae" / "config.json").is_file():
            missing = ["vae/config.json"]
        if missing:
            raise BackboneError(
                f"expected a diffusers model with unet/ or transformer/, and vae/, in {folder}, "
                f"found no {missing[0]}: give the folder that holds model_index.json"
            )
        with self._one_line():
            config: dict[str, Any] = UNet2DConditionModel.load_config(self.described_in, subfolder=held[0])
        return config

    def vae_config(self) -> dict[str, Any]:
        """Configuration of the autoencoder."""
        if self.entry is not None and self.entry.denoiser is not None:
            return self.entry.vae
        with self._one_line():
            config: dict[str, Any] = AutoencoderKL.load_config(self.described_in, subfolder="vae")
        return config

    def schedule(self) -> DDIMScheduler:
        """The noise schedule that a random model is to have."""
        return DDIMScheduler(**(self.entry.schedule if self.entry is not None else SD_SCHEDULE))

    def parts(self, folder: str, model: Any, texts: Mapping[str, Any], flow: bool) -> dict[str, Any]:
        """All parts with their weights, by the name of their folder; None for texts that are not there.

        Args:
            folder: of the denoiser.
            model: its class.
            texts: classes of the text encoders and tokenizers, by folder.
            flow: whether the model's own schedule is none of a diffusion, so that it is not read.

        Raises:
            BackboneError: what cannot be read, or pickled weights.
        """
        with self._one_line(), no_bars():
            if self.is_file:
                denoiser, vae = self._single_file(folder, model)
            else:
                denoiser = self._part(model, folder, **SAFE)
                vae = self._part(AutoencoderKL, "vae", **SAFE)
            found = {
                folder: denoiser,
                "vae": vae,
                "scheduler": None if flow else self._part(DDIMScheduler, "scheduler", required=False),
            }
            for name, loader in texts.items():
                if "tokenizer" in name:
                    found[name] = self._part(loader, name, required=False)
                else:
                    found[name] = self._text_encoder(loader, name)
        return found | {"scheduler": found["scheduler"] or DDIMScheduler(**SD_SCHEDULE)}

    def _part(self, loader: Any, folder: str, required: bool = True, **kwargs: Any) -> Any:
        where = Path(self.described_in)
        if not required and where.is_dir() and not (where / folder).is_dir():
            return None
        return loader.from_pretrained(self.described_in, subfolder=folder, **kwargs)

    def _text_encoder(self, loader: Any, folder: str) -> Any:
        loaded = self._part(loader, folder, required=False, use_safetensors=True, output_loading_info=True)
        if loaded is None:
            return None
        encoder, told = loaded
        if missing := sorted(told["missing_keys"]):  # the library would leave them random
            raise BackboneError(
                f"expected the weights of {folder} in {self.given}, found none for {missing[0]} and "
                f"{len(missing) - 1} more: the file is incomplete, or of another version of transformers"
            )
        return encoder

    def _check_file(self) -> None:
        if Path(self.path).suffix != ".safetensors":
            raise BackboneError(
                f"expected a safetensors file, found {self.path}: its format can hold code and is not read"
            )
        if self.config is None or not Path(self.config).is_dir():
            raise BackboneError(
                f"expected a diffusers folder that describes {self.path}, found {self.config or 'none'}: set "
                "config to one with unet/config.json, vae/config.json, and whole text encoders and tokenizers"
            )

    def _single_file(self, folder: str, model: Any) -> tuple[Any, Any]:
        """Denoiser and autoencoder, whose tensors the library sorts and renames; no network."""
        if folder != "unet":
            raise BackboneError(
                f"expected a diffusers folder, found the single file {self.path}: "
                "such files are read for U-Nets only"
            )
        options = {"config": self.config, "local_files_only": True, **SAFE}
        options.pop("use_safetensors")  # there is no other file to choose
        unet = model.from_single_file(self.path, subfolder="unet", **options)
        # what the file lacks the library would leave random
        with safe_open(self.path, "pt") as file:
            names = [name for name in file.keys() if name.startswith(UNET_PREFIX)]  # noqa: SIM118
            found = sum(prod(file.get_slice(name).get_shape()) for name in names)
        if found != (wanted := sum(p.numel() for p in unet.parameters())):
            raise BackboneError(
                f"expected the {wanted:,} parameters of the U-Net in {self.config}, found {found:,} in "
                f"{self.path}: give the folder of the same architecture"
            )
        return unet, AutoencoderKL.from_single_file(self.path, subfolder="vae", **options)

    @contextmanager
    def _one_line(self) -> Iterator[None]:
        try:
            yield
        except BackboneError:
            raise
        except _LOADING_ERRORS as error:
            reason = " ".join(str(error).split())[:300]
            raise BackboneError(
                f"expected a diffusion model (diffusers, safetensors) in {self.given}, found: {reason}"
            ) from error


@contextmanager
def no_bars() -> Iterator[None]:
    """A bar for each weight file would stand between the lines of a result; downloads keep theirs."""
    shown = [
        library for library in (diffusers_logging, transformers_logging) if library.is_progress_bar_enabled()
    ]
    try:
        for library in shown:
            library.disable_progress_bar()
        yield
    finally:
        for library in shown:
            library.enable_progress_bar()


def as_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """A precision by name.

    Raises:
        UnknownNameError: no such precision.
    """
    found = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype
    if not isinstance(found, torch.dtype):
        raise UnknownNameError("dtype", dtype, ["float32", "bfloat16", "float16", "float64"])
    return found
