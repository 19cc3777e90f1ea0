"""Gradients that are computed in strips are those of the whole."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyclegan.networks import strips
from cyclegan.networks.layers import ConvToPicture
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
    others += [{"padding": "valid"}, {"padding": 4}]
    assert not any(parted(large, Conv2d(4, 6, 3, **other)) for other in others)
    with torch.autocast("cpu", torch.bfloat16):
        assert not parted(large)
    assert "Strips" not in str(torch.export.export(conv, (large,), strict=True).graph)
    assert not parted(large.double(), conv.double())


def test_what_is_large_and_learns_is_parted(monkeypatch):
    """At the bound that is there, and at a small one."""
    asked: list[int] = []
    monkeypatch.setattr(strips._Strips, "apply", lambda x, *_: asked.append(x.shape[-1]) or x)
    for n, height, width in ((1, 128, 128), (1, 182, 182), (2, 128, 128), (2, 128, 130)):
        Conv2d(64, 128, 3, 2, 1)(torch.empty(n, 64, height, width).to(memory_format=torch.channels_last))
    assert asked == [182, 130]
    monkeypatch.setattr(strips, "LARGE", 4 * 16 * 16 - 1)
    half, large = (torch.randn(1, 4, h, 16).to(memory_format=torch.channels_last) for h in (8, 16))
    for stride in ((2, 1), (1, 2)):
        ConvTranspose2d(4, 4, 3, stride)(half)
    assert len(asked) == 4
    with torch.no_grad():
        Conv2d(4, 6, 3)(large)
    Conv2d(4, 6, 3).requires_grad_(False)(large)
    torch.jit.trace(Conv2d(4, 6, 3), large, check_trace=False)
    assert len(asked) == 4


@pytest.fixture
def backwards(monkeypatch) -> list[tuple]:
    """What PyTorch is asked to compute."""
    calls, plain = [], torch.ops.aten.convolution_backward
    monkeypatch.setattr(torch.ops.aten, "convolution_backward", lambda *given: (calls.append(given), plain(*given))[1])
    return calls


@pytest.mark.parametrize(
    ("pictures", "strip", "rows"),
    [(1, 240, [3, 3]), (1, 479, [5, 1]), (2, 240, [1] * 6), (2, 480, [3, 3]), (1, 1, [1] * 6), (1, 10**6, [6])],
)
def test_strips_are_the_rows_that_fit(pictures: int, strip: int, rows: list[int], backwards: list, monkeypatch):
    monkeypatch.setattr(strips, "LARGE", 0)
    monkeypatch.setattr(strips, "STRIP", strip)
    Conv2d(4, 6, 3, 2, 1)(torch.randn(pictures, 4, 12, 10).to(memory_format=torch.channels_last)).sum().backward()
    assert [given[0].shape[2] for given in backwards if given[-1][1]] == rows


def test_nothing_is_computed_twice(backwards: list, monkeypatch):
    monkeypatch.setattr(strips, "LARGE", 0)
    conv, x = Conv2d(4, 6, 3), torch.randn(1, 4, 8, 8).to(memory_format=torch.channels_last)
    conv(x).sum().backward()
    conv(x.requires_grad_()).sum().backward()
    of_weight = [False, True, False]
    assert [given[-1] for given in backwards] == [[False] * 3, of_weight, [True, False, False], of_weight]


def test_a_transposed_convolution_takes_the_size_that_it_is_told(monkeypatch):
    monkeypatch.setattr(strips, "LARGE", 0)
    x = torch.randn(1, 4, 8, 8).to(memory_format=torch.channels_last)
    for kind in (nn.ConvTranspose2d, ConvTranspose2d):
        assert kind(4, 4, 3, 2)(x, output_size=[18, 17]).shape == (1, 4, 18, 17)


@pytest.mark.parametrize(
    ("kind", "plain"), [(Conv2d, nn.Conv2d), (ConvToPicture, nn.Conv2d), (ConvTranspose2d, nn.ConvTranspose2d)]
)
@pytest.mark.parametrize("large", [0, 10**9])
def test_a_weight_that_changes_when_it_is_asked_for_is_asked_for_once(kind: type, plain: type, large: int, monkeypatch):
    """Spectral norm's, in training."""
    monkeypatch.setattr(strips, "LARGE", large)
    x = torch.randn(1, 8, 18, 18).to(memory_format=torch.channels_last)
    found = []
    for each in (kind, plain):
        torch.manual_seed(0)
        found.append(nn.utils.parametrizations.spectral_norm(each(8, 3, 7))(x))
    assert torch.allclose(*found, atol=1e-6)


def test_resnet_generators_are_made_of_them():
    found = [type(m) for m in ResnetGenerator(width=8, blocks=1).modules() if isinstance(m, nn.modules.conv._ConvNd)]
    assert found.count(Conv2d) == 3 and found.count(ConvTranspose2d) == 2
