from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cyclegan.networks.layers import InstanceNorm, padded, padding_layer


def images(count: int, layout: torch.memory_format, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, 5, 6, 7, generator=generator, dtype=torch.float64) * 3 + 4
    return x.to(dtype).contiguous(memory_format=layout)


def plain_norm(x: Tensor) -> Tensor:
    """Ulyanov et al. 2016, equation 2, in double precision."""
    x = x.double()
    mean = x.mean((2, 3), keepdim=True)
    return (x - mean) / ((x - mean).square().mean((2, 3), keepdim=True) + 1e-5).sqrt()


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5), (torch.bfloat16, 1e-2)]
)
def test_instance_norm_and_its_gradient_are_the_formula_in_any_layout(
    count: int, layout: torch.memory_format, dtype: torch.dtype, tolerance: float
):
    x = images(count, layout, dtype).requires_grad_()
    exact = x.detach().double().requires_grad_()
    incoming = images(count, layout, dtype) - 4
    found, expected = InstanceNorm(5)(x), plain_norm(exact)
    assert found.dtype == dtype and found.is_contiguous(memory_format=layout)
    found.backward(incoming)
    expected.backward(incoming.double())
    assert torch.allclose(found.double(), expected, atol=tolerance, rtol=tolerance)
    assert torch.allclose(x.grad.double(), exact.grad, atol=tolerance, rtol=tolerance)


def test_instance_norm_can_be_differentiated_twice_in_channels_last():
    x = images(2, torch.channels_last).requires_grad_()
    assert torch.autograd.gradgradcheck(InstanceNorm(5), x)


@pytest.mark.parametrize("mode", ["reflect", "replicate"])
def test_padding_keeps_half_precision_under_autocast(mode: str):
    x = images(2, torch.channels_last, torch.bfloat16).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        found = [padded(x, 2, mode), padding_layer(mode, 2)(x)]
        assert F.conv2d(x, x[:1]).dtype == torch.bfloat16  # autocast is on again
    for y in found:
        assert y.dtype == torch.bfloat16 and y.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(y, F.pad(x.float(), (2, 2, 2, 2), mode=mode).bfloat16())
        (gradient,) = torch.autograd.grad(y, x, torch.ones_like(y))
        assert gradient.dtype == torch.bfloat16 and gradient.is_contiguous(memory_format=torch.channels_last)
        assert gradient.double().sum().item() == y.numel()
