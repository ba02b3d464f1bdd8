"""The attention that is written out against the library's own processors."""

import copy

import pytest
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor, AttnProcessor2_0

from diffcorr.backbones.processor import AttentionProcessor, fused
from tests.helpers.tiny_models import WIDTH, tiny_unet


def random(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("theirs", [AttnProcessor, AttnProcessor2_0])
def test_a_unet_gives_the_same_with_the_librarys_processors(theirs: type) -> None:
    ours = tiny_unet().double()
    other = copy.deepcopy(ours)
    ours.set_attn_processor(AttentionProcessor())
    other.set_attn_processor(theirs())
    outputs, gradients = [], []
    for unet in (ours, other):
        prompt = random(2, 5, WIDTH).requires_grad_()
        out = unet(random(2, 4, 8, 12), 300, prompt).sample
        outputs.append(out)
        gradients += torch.autograd.grad(out.square().sum(), prompt)
    torch.testing.assert_close(outputs[0], outputs[1], rtol=1e-9, atol=1e-11)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-8, atol=1e-10)


def test_normed_images_residuals_and_masks() -> None:
    """What autoencoders and other families use: pictures in, group norms, a residual, masked tokens."""
    torch.manual_seed(0)
    own = Attention(
        16, heads=2, dim_head=8, norm_num_groups=4, residual_connection=True, rescale_output_factor=2.0
    )
    cross = Attention(16, cross_attention_dim=6, heads=2, dim_head=8, cross_attention_norm="layer_norm")
    mask = torch.zeros(2, 1, 5).double()
    mask[1, :, 3:] = -1e4
    calls = [
        (own, (random(2, 16, 3, 4),), {}),
        (cross, (random(2, 12, 16), random(2, 5, 6)), {"attention_mask": mask}),
    ]
    for module, args, kwargs in calls:
        module.double()
        found = []
        for processor in (AttentionProcessor(), AttnProcessor2_0()):
            module.set_processor(processor)
            found.append(module(*args, **kwargs))
        torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-11)


def test_half_precision_on_a_cpu() -> None:
    """Gradients as exact as inputs of 8 bits allow, in the inputs' precision."""
    half = [random(2, 3, n, 8, seed=n, dtype=torch.bfloat16).requires_grad_() for n in (16, 5, 5)]
    half[2] = random(2, 3, 5, 8, seed=9, dtype=torch.bfloat16).requires_grad_()
    exact = [t.detach().double().requires_grad_() for t in half]
    out = fused(*half, scale=0.3)
    assert out.dtype == torch.bfloat16
    probs = (exact[0] @ exact[1].mT * 0.3).softmax(-1)
    found = torch.autograd.grad(out.float().sum(), half)
    for value, wanted in zip(found, torch.autograd.grad((probs @ exact[2]).sum(), exact), strict=True):
        assert value.dtype == torch.bfloat16
        torch.testing.assert_close(value.double(), wanted, rtol=2e-2, atol=2e-2)
