from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cyclegan.networks import build_generator, strips
from cyclegan.networks.layers import (
    BlurDown,
    BlurUp,
    ConvToPicture,
    InstanceNorm,
    bias_before,
    eager_on_cpu,
    norm_layer,
    padded,
    padding_layer,
)
from cyclegan.networks.winograd import use_winograd


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
@pytest.mark.parametrize("gradient", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-5), (torch.bfloat16, 1e-2)]
)
def test_instance_norm_and_its_gradient_are_the_formula_in_any_layout(
    count: int, layout: torch.memory_format, gradient: torch.memory_format, dtype: torch.dtype, tolerance: float
):
    x = images(count, layout, dtype).requires_grad_()
    exact = x.detach().double().requires_grad_()
    incoming = torch.randn(x.shape, generator=torch.Generator().manual_seed(1)).to(dtype, memory_format=gradient)
    found, expected = InstanceNorm(5)(x), plain_norm(exact)
    assert found.dtype == dtype and found.is_contiguous(memory_format=layout)
    found.backward(incoming)
    expected.backward(incoming.double())
    assert torch.allclose(found.double(), expected, atol=tolerance, rtol=tolerance)
    assert torch.allclose(x.grad.double(), exact.grad, atol=tolerance, rtol=tolerance)


def test_instance_norm_can_be_differentiated_twice_in_channels_last():
    x = images(2, torch.channels_last).requires_grad_()
    assert torch.autograd.gradgradcheck(InstanceNorm(5), x)


def test_instance_norm_takes_a_picture_without_a_batch():
    x = torch.randn(4, 6, 5)
    assert torch.allclose(InstanceNorm(4)(x), torch.nn.InstanceNorm2d(4)(x), atol=1e-6)


def test_instance_norm_traced_or_exported_with_two_pictures_serves_three():
    two, three = (images(count, torch.channels_last, torch.float32) for count in (2, 3))
    expected = plain_norm(three).float()
    traced = torch.jit.trace(InstanceNorm(5), two)
    assert torch.allclose(traced(three), expected, atol=1e-5)
    exported = torch.export.export(InstanceNorm(5), (two,), dynamic_shapes=({0: torch.export.Dim("pictures")},))
    assert torch.allclose(exported.module()(three), expected, atol=1e-5)


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


def normed(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Mean 0 and variance 1 over these dimensions."""
    return (x - x.mean(dims, keepdim=True)) / (x.var(dims, correction=0, keepdim=True) + 1e-5).sqrt()


def test_each_name_of_a_norm_normalises_over_its_own_places():
    x = 3 * torch.randn(2, 64, 4, 5, generator=torch.Generator().manual_seed(0)) + 4
    grouped = normed(x.view(2, 32, 2, 4, 5), (2, 3, 4)).view_as(x)
    expected = {"instance": normed(x, (2, 3)), "batch": normed(x, (0, 2, 3)), "group": grouped, "none": x}
    for norm, values in expected.items():
        assert torch.allclose(norm_layer(norm, 64)(x), values, atol=1e-4), norm


def test_fewer_channels_than_32_are_groups_of_their_own_and_33_cannot_be_shared_out():
    x = 3 * torch.randn(2, 20, 4, 5, generator=torch.Generator().manual_seed(0)) + 4
    assert torch.allclose(norm_layer("group", 20)(x), normed(x, (2, 3)), atol=1e-4)
    assert norm_layer("group", 32).num_groups == 32
    with pytest.raises(ValueError, match="33 channels cannot be shared out"):
        norm_layer("group", 33)


def test_a_convolution_has_a_bias_where_the_norm_has_none():
    for norm in ("instance", "batch", "group", "none"):
        own = any(name == "bias" for name, _ in norm_layer(norm, 32).named_parameters())
        assert bias_before(norm) != own, norm


def test_paddings_continue_pictures_in_their_own_ways():
    x = torch.tensor([[[[1.0, 2.0, 3.0]] * 2]])  # what goes on to the left of 1 2 3
    assert padding_layer("reflect", 1)(x)[0, 0, 0].tolist() == [2, 1, 2, 3, 2]
    assert padding_layer("replicate", 2)(x)[0, 0, 0].tolist() == [1, 1, 1, 2, 3, 3, 3]
    assert padding_layer("zero", 1)(x)[0, 0, 1].tolist() == [0, 1, 2, 3, 0]


@pytest.mark.parametrize("sides", [(6, 8), (5, 7)])
def test_blurs_are_sums_over_their_taps_up_to_the_edges(sides: tuple[int, int]):
    x = torch.randn(2, 3, *sides, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    down, up = BlurDown(3)(x), BlurUp(3)(x)
    for found, expected in ((down, along_both_sides(x, halved)), (up, along_both_sides(x, doubled))):
        assert found.dtype == torch.float64 and torch.allclose(found, expected)


def along_both_sides(x: Tensor, resample) -> Tensor:
    return resample(resample(x).mT).mT


def halved(x: Tensor) -> Tensor:
    """Every second column, with a quarter of each neighbour; beyond an edge is what lies before it."""
    width = x.shape[3]
    places = [(abs(i - 1), i, i + 1 if i + 1 < width else width - 2) for i in range(0, width, 2)]
    return torch.stack([(x[..., a] + 2 * x[..., b] + x[..., c]) / 4 for a, b, c in places], 3)


def doubled(x: Tensor) -> Tensor:
    """Two columns for each, with a quarter of the neighbour at their side; beyond an edge the edge goes on."""
    last = x.shape[3] - 1
    places = [(i, max(0, i - 1)) for i in range(last + 1)], [(i, min(last, i + 1)) for i in range(last + 1)]
    left, right = (torch.stack([(3 * x[..., a] + x[..., b]) / 4 for a, b in side], 3) for side in places)
    return torch.stack([left, right], 4).flatten(3)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("channels", "kernel", "bias"), [(3, 7, True), (1, 3, False), (4, (5, 4), True)])
def test_a_convolution_to_a_picture_is_the_plain_one(
    channels: int, kernel: int | tuple, bias: bool, layout: torch.memory_format
):
    """Values and gradients, as PyTorch computes them in double precision."""
    torch.manual_seed(0)
    conv = ConvToPicture(8, channels, kernel, bias=bias).to(memory_format=layout)
    height, width = conv.kernel_size
    x = torch.randn(2, 8, 11 + height, 5 + width).to(memory_format=layout).requires_grad_()
    gradient = torch.randn(2, channels, 12, 6)
    y = conv(x)
    assert type(y.grad_fn).__name__ == "PixelShuffleBackward0"
    weights = [x, *conv.parameters()]
    doubles = [weight.detach().double().requires_grad_() for weight in weights]
    plain = F.conv2d(*doubles)
    assert torch.allclose(y.double(), plain, atol=1e-5)
    found = torch.autograd.grad(y, weights, gradient)
    exact = torch.autograd.grad(plain, doubles, gradient.double())
    assert all(torch.allclose(a.double(), b, rtol=1e-4, atol=1e-4) for a, b in zip(found, exact, strict=True))


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({}, (1, 8, 19, 18)),  # odd sides of the result
        ({}, (1, 8, 18, 19)),
        ({}, (8, 18, 18)),
        ({"out_channels": 5}, (1, 8, 18, 18)),
        ({"stride": 2}, (1, 8, 18, 18)),
        ({"dtype": torch.float64}, (1, 8, 18, 18)),
        ({"dilation": 2}, (1, 8, 18, 18)),
        ({"padding": 3}, (1, 8, 18, 18)),
        ({"groups": 2, "out_channels": 4}, (1, 8, 18, 18)),
    ],
)
def test_what_is_no_plain_convolution_to_a_picture_goes_pytorchs_way(options: dict, shape: tuple):
    conv = ConvToPicture(**{"in_channels": 8, "out_channels": 3, "kernel_size": 7, **options})
    x = torch.randn(shape, dtype=options.get("dtype"))
    y = conv(x)
    assert type(y.grad_fn).__name__ != "PixelShuffleBackward0"
    assert torch.equal(y, F.conv2d(x, conv.weight, conv.bias, conv.stride, conv.padding, conv.dilation, conv.groups))


def test_an_exported_convolution_to_a_picture_is_plain():
    conv, x = ConvToPicture(8, 3, 7), torch.randn(1, 8, 18, 18)
    exported = torch.export.export(conv, (x,), strict=True)
    assert "conv2d" in str(exported.graph) and "pixel_shuffle" not in str(exported.graph)
    assert "pixel_shuffle" not in str(torch.jit.trace(conv, x, check_trace=False).inlined_graph)


def test_other_devices_and_compilers_compute_in_their_own_ways():
    assert eager_on_cpu(torch.empty(1)) and not eager_on_cpu(torch.empty(1, device="meta"))
    told = []
    torch.compile(lambda x: (told.append(eager_on_cpu(x)), x + 1)[1], backend="eager")(torch.empty(1))
    torch.jit.trace(lambda x: (told.append(eager_on_cpu(x)), x + 1)[1], torch.empty(1), check_trace=False)
    assert told == [False, False]


def test_generators_end_with_a_convolution_to_a_picture():
    for name in ("resnet", "ugatit"):
        generator = build_generator({"name": name, "width": 8, "blocks": 1})
        ends = [module for module in generator.modules() if isinstance(module, ConvToPicture)]
        assert [end.out_channels for end in ends] == [3]


@pytest.mark.parametrize("kind", ["strips", "winograd", "norm"])
def test_layers_with_ways_of_their_own_go_through_transforms_of_torch_func(kind: str, monkeypatch):
    monkeypatch.setattr(strips, "LARGE", 1)
    layer = InstanceNorm(128) if kind == "norm" else strips.Conv2d(128, 128, 3)
    if kind == "winograd":
        use_winograd(layer, least_places=1)
    x = torch.randn(2, 128, 8, 8).contiguous(memory_format=torch.channels_last)
    expected = layer(x)
    assert torch.allclose(torch.func.vmap(layer)(x[:, None])[:, 0], expected, atol=1e-4)
    direction = torch.ones_like(x)
    value, forwards = torch.func.jvp(layer, (x,), (direction,))
    assert torch.allclose(value, expected, atol=1e-4)
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, direction)
        assert torch.allclose(torch.autograd.forward_ad.unpack_dual(layer(dual)).tangent, forwards, atol=1e-4)
    gradient = torch.func.grad(lambda x: layer(x).square().sum())(x)
    known = x.clone().requires_grad_()
    assert torch.allclose(gradient, torch.autograd.grad(layer(known).square().sum(), known)[0], atol=1e-2)
