"""Gradients that are computed in strips are those of the whole."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyclegan.networks import strips
from cyclegan.networks.resnet import ResnetGenerator
from cyclegan.networks.strips import Conv2d, ConvTranspose2d

KINDS = [
    (Conv2d, {"kernel_size": 3, "stride": 2, "padding": 1}),
    (Conv2d, {"kernel_size": 3, "stride": 2, "padding": 1, "bias": False}),
    (Conv2d, {"kernel_size": (5, 2), "stride": (1, 3), "padding": (2, 0)}),
    (Conv2d, {"kernel_size": 7}),
    (Conv2d, {"kernel_size": 1, "stride": 3}),
    (ConvTranspose2d, {"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1}),
    (ConvTranspose2d, {"kernel_size": 4, "stride": (2, 1), "padding": (0, 1), "bias": False}),
]


def gradients(y: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)
    return list(torch.autograd.grad((y * weights).sum(), leaves))


def exactly(conv: nn.Conv2d | nn.ConvTranspose2d, leaves: list[Tensor]) -> Tensor:
    """By PyTorch in double precision."""
    x, weight, *bias = leaves
    if isinstance(conv, nn.ConvTranspose2d):
        return F.conv_transpose2d(x, weight, *(bias or [None]), conv.stride, conv.padding, conv.output_padding)
    return F.conv2d(x, weight, *(bias or [None]), conv.stride, conv.padding)


@pytest.mark.parametrize("strip", [1, 300, 10**6])  # numbers: a row at a time, some, all
@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_values_and_gradients_are_those_of_the_plain_convolution(kind: type, options: dict, strip: int, monkeypatch):
    monkeypatch.setattr(strips, "LARGE", 0)
    monkeypatch.setattr(strips, "STRIP", strip)
    torch.manual_seed(0)
    conv = kind(4, 6, **options)
    x = torch.randn(2, 4, 13, 12).to(memory_format=torch.channels_last).requires_grad_()
    y = conv(x)
    assert "Strips" in type(y.grad_fn).__name__
    leaves = [x, *conv.parameters()]
    doubles = [leaf.detach().double().requires_grad_() for leaf in leaves]
    exact = exactly(conv, doubles)
    assert torch.allclose(y.double(), exact, atol=1e-5)
    for found, expected in zip(gradients(y, leaves), gradients(exact, doubles), strict=True):
        assert torch.allclose(found.double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_gradients_of_gradients_are_those_of_the_plain_convolution(kind: type, options: dict, monkeypatch):
    monkeypatch.setattr(strips, "LARGE", 0)
    torch.manual_seed(0)
    conv = kind(4, 6, **options)
    leaves = [torch.randn(1, 4, 9, 8).to(memory_format=torch.channels_last).requires_grad_(), *conv.parameters()]

    def penalty(y: Tensor, leaves: list[Tensor]) -> list[Tensor]:
        (gradient,) = torch.autograd.grad(y.tanh().sum(), leaves[0], create_graph=True)
        return list(torch.autograd.grad(gradient.square().sum(), leaves[:2]))

    doubles = [leaf.detach().double().requires_grad_() for leaf in leaves]
    found, expected = penalty(conv(leaves[0]), leaves), penalty(exactly(conv, doubles), doubles)
    assert all(torch.allclose(a.double(), b, rtol=1e-3, atol=1e-4) for a, b in zip(found, expected, strict=True))


def test_only_gradients_that_are_wanted_are_computed(monkeypatch):
    monkeypatch.setattr(strips, "LARGE", 0)
    monkeypatch.setattr(strips, "_gradient_of_weight", lambda *_: computed.append(1) or torch.zeros(6, 4, 3, 3))
    computed: list[int] = []
    conv, x = Conv2d(4, 6, 3), torch.randn(1, 4, 8, 8).to(memory_format=torch.channels_last)
    conv(x).sum().backward()
    assert computed and x.grad is None
    frozen = Conv2d(4, 6, 3).requires_grad_(False)
    frozen(x.requires_grad_()).sum().backward()
    assert x.grad is not None and len(computed) == 1


def test_only_large_float32_in_channels_last_is_parted(monkeypatch):
    monkeypatch.setattr(strips, "LARGE", 4 * 16 * 16 - 1)
    conv = Conv2d(4, 6, 3, padding=1)
    large = torch.randn(1, 4, 16, 16).to(memory_format=torch.channels_last)

    def parted(x: Tensor, conv: nn.Module = conv) -> bool:
        return "Strips" in type(conv(x).grad_fn).__name__

    assert parted(large)
    assert not parted(large.contiguous()) and not parted(large[:, :, 1:]) and not parted(large[0])
    small = torch.randn(1, 4, 8, 8).to(memory_format=torch.channels_last)
    assert parted(small, ConvTranspose2d(4, 4, 4, 2, 1))  # four times as many come out
    assert not parted(small, ConvTranspose2d(4, 4, 4, 1, 1)) and not parted(small, ConvTranspose2d(4, 3, 4, 2, 1))
    others = [{"groups": 2}, {"dilation": 2}, {"padding": 1, "padding_mode": "reflect"}, {"padding": "same"}]
    assert not any(parted(large, Conv2d(4, 6, 3, **other)) for other in others)
    with torch.autocast("cpu", torch.bfloat16):
        assert not parted(large)
    with torch.no_grad():
        assert not parted(large)
    assert "Strips" not in str(torch.export.export(conv, (large,), strict=True).graph)
    assert not parted(large.double(), conv.double())


def test_resnet_generators_are_made_of_them():
    found = [type(m) for m in ResnetGenerator(width=8, blocks=1).modules() if isinstance(m, nn.modules.conv._ConvNd)]
    assert found.count(Conv2d) == 3 and found.count(ConvTranspose2d) == 2
