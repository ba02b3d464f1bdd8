"""Checkpoints in one file, as the original programs write them."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from diffcorr.backbones import LatentBackbone, UNetBackbone
from diffcorr.errors import BackboneError
from tests.helpers.tiny_models import save_tiny_family, save_tiny_pipeline, tiny_unet, tiny_vae

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
UNET = {  # of the toy U-Net, block by block, in the order of the original program
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "down_blocks.0.resnets.0": "input_blocks.1.0",
    "down_blocks.0.attentions.0": "input_blocks.1.1",
    "down_blocks.0.downsamplers.0.conv": "input_blocks.2.0.op",
    "down_blocks.1.resnets.0": "input_blocks.3.0",
    "down_blocks.1.attentions.0": "input_blocks.3.1",
    "mid_block.resnets.0": "middle_block.0",
    "mid_block.attentions.0": "middle_block.1",
    "mid_block.resnets.1": "middle_block.2",
    "up_blocks.0.resnets.0": "output_blocks.0.0",
    "up_blocks.0.attentions.0": "output_blocks.0.1",
    "up_blocks.0.resnets.1": "output_blocks.1.0",
    "up_blocks.0.attentions.1": "output_blocks.1.1",
    "up_blocks.0.upsamplers.0.conv": "output_blocks.1.2.conv",
    "up_blocks.1.resnets.0": "output_blocks.2.0",
    "up_blocks.1.attentions.0": "output_blocks.2.1",
    "up_blocks.1.resnets.1": "output_blocks.3.0",
    "up_blocks.1.attentions.1": "output_blocks.3.1",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}


def renamed(name: str, prefixes: dict[str, str]) -> str:
    for ours, theirs in prefixes.items():
        if name.startswith(f"{ours}."):
            return theirs + name.removeprefix(ours)
    return name


def original_unet() -> dict[str, torch.Tensor]:
    found = {}
    for name, tensor in tiny_unet().state_dict().items():
        new = renamed(name, UNET)
        if ".resnets." in name:
            block = next(theirs for ours, theirs in UNET.items() if name.startswith(f"{ours}."))
            new = f"{block}.{renamed(new.removeprefix(f'{block}.'), RESNET)}"
        found[f"model.diffusion_model.{new}"] = tensor
    return found


def original_vae() -> dict[str, torch.Tensor]:
    found = {}
    for name, tensor in tiny_vae().state_dict().items():
        new = name.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
        for i in range(3):
            new = new.replace(f"down_blocks.{i}.resnets", f"down.{i}.block")
            new = new.replace(f"down_blocks.{i}.downsamplers.0", f"down.{i}.downsample")
            new = new.replace(f"up_blocks.{i}.resnets", f"up.{2 - i}.block")
            new = new.replace(f"up_blocks.{i}.upsamplers.0", f"up.{2 - i}.upsample")
        new = new.replace("mid_block.resnets.0", "mid.block_1").replace("mid_block.resnets.1", "mid.block_2")
        if "mid_block.attentions.0." in new:
            head, rest = new.split("mid_block.attentions.0.")
            new = f"{head}mid.attn_1.{renamed(rest, ATTENTION)}"
            if tensor.ndim == 2:
                tensor = tensor[:, :, None, None]  # there it is a convolution
        found[f"first_stage_model.{new}"] = tensor.contiguous()
    return found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_pipeline(tmp_path_factory.mktemp("folder"))


def test_a_single_file_is_the_folder(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_file(original_unet() | original_vae(), file)
    expected = UNetBackbone.from_pretrained(folder)
    for part in ("unet", "vae"):
        (folder / part / "diffusion_pytorch_model.safetensors").rename(tmp_path / part)  # not needed
    try:
        found = LatentBackbone.from_pretrained(file, config=folder)
    finally:
        for part in ("unet", "vae"):
            (tmp_path / part).rename(folder / part / "diffusion_pytorch_model.safetensors")
    assert type(found) is UNetBackbone
    assert found.fingerprint == expected.fingerprint
    images = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(found.encode(images), expected.encode(images))
    latents = torch.randn(1, 4, 8, 8)
    torch.testing.assert_close(
        found.denoise(latents, 7, found.null_prompt()), expected.denoise(latents, 7, expected.null_prompt())
    )


def test_what_a_single_file_needs(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    tensors = original_unet() | original_vae()
    save_file(tensors, file)
    with pytest.raises(
        BackboneError, match=r"expected a diffusers folder that describes .*, found none: set"
    ):
        LatentBackbone.from_pretrained(file)
    (tmp_path / "pixart").mkdir()
    other = save_tiny_family(tmp_path / "pixart", "pixart")
    with pytest.raises(BackboneError, match="such files are read for U-Nets only"):
        LatentBackbone.from_pretrained(file, config=other)
    pickled = tmp_path / "model.ckpt"
    torch.save({}, pickled)
    with pytest.raises(BackboneError, match="can hold code and is not read"):
        LatentBackbone.from_pretrained(pickled, config=folder)
    name = next(name for name in tensors if name.startswith("model.diffusion_model.") and "attn2" in name)
    del tensors[name]
    save_file(tensors, tmp_path / "less.safetensors")
    with pytest.raises(BackboneError, match=r"expected the [\d,]+ parameters of the U-Net|, found: "):
        LatentBackbone.from_pretrained(tmp_path / "less.safetensors", config=folder)
