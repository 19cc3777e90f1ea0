"""Winograd's convolutions are PyTorch's but for rounding, and only where they pay."""

from __future__ import annotations

import copy
from concurrent.futures import ThreadPoolExecutor
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from cyclegan.networks import winograd
from cyclegan.networks.resnet import ResnetGenerator
from cyclegan.networks.winograd import WinogradConv2d, use_winograd, winograd_conv2d

SHAPES = [(1, 6, 6), (2, 6, 10), (1, 7, 6), (2, 10, 8), (1, 6, 9), (3, 13, 11), (1, 3, 3), (2, 18, 26)]


def drawn(n: int, height: int, width: int, channels: int = 5, wider: int = 7) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    x = torch.randn(n, channels, height, width)
    return (
        x.requires_grad_(),
        torch.randn(wider, channels, 3, 3, requires_grad=True),
        torch.randn(wider).requires_grad_(),
    )


def results(convolve, x: Tensor, weight: Tensor, bias: Tensor) -> list[Tensor]:
    """The convolution and the gradients of a weighted sum of it."""
    y = convolve(x, weight, bias)
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)
    return [y, *torch.autograd.grad((y * weights).sum(), (x, weight, bias))]


def furthest(mine: list[Tensor], exact: list[Tensor]) -> float:
    """Relative to the largest value of each."""
    return max(((a - b).abs().max() / b.abs().max()).item() for a, b in zip(mine, exact, strict=True))


@pytest.mark.filterwarnings("error:An output with one or more elements was resized")  # memory of another shape
@pytest.mark.parametrize("tiles", [1, 3, 1024])
@pytest.mark.parametrize("shape", SHAPES)
def test_values_and_gradients_are_those_of_the_plain_convolution(shape: tuple, tiles: int, monkeypatch):
    """However a batch is parted."""
    monkeypatch.setattr(winograd, "TILES", tiles)
    inputs = drawn(*shape)
    exact = results(F.conv2d, *(x.detach().double().requires_grad_() for x in inputs))
    assert furthest(results(winograd_conv2d, *inputs), exact) < 2e-6
    strided = [x.detach().to(memory_format=torch.channels_last).requires_grad_() for x in inputs[:2]]
    assert furthest(results(winograd_conv2d, *strided, inputs[2]), exact) < 2e-6


def test_memory_to_compute_in_does_not_grow_with_pictures(monkeypatch):
    """Rows of tiles, as they are needed: their 6 numbers for each of 4 results, and 2 beyond the last."""
    monkeypatch.setattr(winograd, "TILES", 32)
    winograd.ROOMS.by_name.clear()
    for n, side in ((1, 34), (1, 66), (9, 18)):
        winograd_conv2d(*drawn(n, side, side)).sum().backward()
        most = 6 * 32 * (4 + 2) * 7  # channels of the result
        assert max(room.numel() for room in winograd.ROOMS.by_name.values()) <= most


def test_memory_to_compute_in_serves_again():
    def places() -> dict[str, int]:
        return {name: room.data_ptr() for name, room in winograd.ROOMS.by_name.items()}

    winograd.ROOMS.by_name.clear()
    winograd_conv2d(*drawn(1, 18, 18)).sum().backward()
    before = places()
    for side in (18, 10):
        winograd_conv2d(*drawn(1, side, side)).sum().backward()
    assert len(before) == 7 and places() == before


@pytest.mark.parametrize(
    ("shape", "parts"),
    [
        ((5, 8, 8), [(2, 8, 10), (2, 8, 10), (1, 8, 10)]),  # four tiles a picture
        ((1, 20, 16), [(1, 8, 10), (1, 8, 10), (1, 4, 6)]),  # four a row
        ((2, 8, 80), [(1, 4, 6)] * 4),  # twenty a row
    ],
)
def test_parts_are_what_fits_of_pictures_or_rows(shape: tuple, parts: list, monkeypatch):
    """Each: pictures, rows of results and the rows that these see."""
    monkeypatch.setattr(winograd, "TILES", 8)
    n, height, _ = shape
    slices = winograd._parts(torch.empty(*shape, 1))
    found = [(range(n)[some], range(height)[rows], range(height + 2)[seen]) for some, rows, seen in slices]
    assert [tuple(map(len, part)) for part in found] == parts
    places = [place for some, rows, _ in found for place in product(some, rows)]
    assert sorted(places) == list(product(range(n), range(height)))


def test_tiles_by_hand():
    """Kernel of ones over 0 … 15: the sums of the four 3x3 squares."""
    x = torch.arange(16.0).view(1, 1, 4, 4)
    sums = torch.tensor([[[[45.0, 54.0], [81.0, 90.0]]]])
    assert torch.allclose(winograd_conv2d(x, torch.ones(1, 1, 3, 3)), sums, rtol=1e-5)


def test_matrices_are_exact_ways_to_correlate():
    """Each of the three kernels' numbers with each of the six of a line gives what it would one by one."""
    a_t, b_t, g = (matrix.double() for matrix in (winograd.A_T, winograd.B_T, winograd.G))
    found = torch.einsum("oi,ik,il->okl", a_t, g, b_t)
    expected = torch.zeros(4, 3, 6)
    for o, k in product(range(4), range(3)):
        expected[o, k, o + k] = 1
    assert torch.allclose(found, expected.double(), atol=1e-6)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_it_rounds_by_two_millionths(layout: torch.memory_format):
    """From the points of Lavin and Gray, 0, ±1 and ±2, it would round by twice as much."""
    torch.manual_seed(0)
    shapes = (1, 256, 18, 18), (256, 256, 3, 3)
    inputs = [torch.randn(shape).to(memory_format=layout).requires_grad_() for shape in shapes]
    inputs.append(torch.zeros(256, requires_grad=True))
    exact = results(F.conv2d, *(x.detach().double().requires_grad_() for x in inputs))
    for mine, sums in list(zip(results(winograd_conv2d, *inputs), exact, strict=True))[:3]:
        assert (mine - sums).norm() < 2.5e-6 * sums.norm()


def test_gradients_of_gradients_are_those_of_the_plain_convolution():
    def penalty(convolve) -> list[Tensor]:
        x, weight, bias = (x.detach().requires_grad_() for x in drawn(2, 6, 6))
        (gradient,) = torch.autograd.grad(convolve(x, weight, bias).tanh().sum(), x, create_graph=True)
        return list(torch.autograd.grad(gradient.square().sum(), (x, weight, bias)))

    assert furthest(penalty(winograd_conv2d), penalty(F.conv2d)) < 1e-5


@pytest.mark.parametrize(
    ("wanted", "computed"),
    [
        ((True, False, False), {"_gradient_of_x"}),
        ((False, True, False), {"_gradient_of_weight"}),
        ((False, False, True), set()),
    ],
)
def test_only_gradients_that_are_wanted_are_computed(wanted: tuple, computed: set[str], monkeypatch):
    def noted(function):
        return lambda *given: (done.add(function.__name__), function(*given))[1]

    done: set[str] = set()
    for name in ("_gradient_of_x", "_gradient_of_weight"):
        monkeypatch.setattr(winograd, name, noted(getattr(winograd, name)))
    inputs = [x.detach().requires_grad_(want) for x, want in zip(drawn(1, 6, 6), wanted, strict=True)]
    winograd_conv2d(*inputs).sum().backward()
    assert done == computed
    plain = [x.detach().requires_grad_(want) for x, want in zip(inputs, wanted, strict=True)]
    F.conv2d(*plain).sum().backward()
    for mine, theirs, want in zip(inputs, plain, wanted, strict=True):
        assert torch.allclose(mine.grad, theirs.grad, atol=1e-5) if want else mine.grad is None


@pytest.mark.parametrize("side", [6, 7])  # whole tiles, or cut off
def test_an_activation_may_write_over_the_result(side: int):
    def written_over(convolve) -> list[Tensor]:
        return results(lambda *given: F.relu(convolve(*given), inplace=True), *drawn(1, side, side))

    assert furthest(written_over(winograd_conv2d), written_over(F.conv2d)) < 1e-5


def test_what_fits_is_changed_and_nothing_else():
    fitting = [
        nn.Conv2d(128, 128, 3),
        nn.Conv2d(128, 256, 3, padding=1, bias=False),
        nn.Conv2d(128, 128, 3, padding=1, padding_mode="reflect"),
    ]
    others = [
        nn.Conv2d(64, 128, 3),
        nn.Conv2d(128, 64, 3),
        nn.Conv2d(128, 128, 3, stride=2),
        nn.Conv2d(128, 128, 3, dilation=2),
        nn.Conv2d(256, 256, 3, groups=2),
        nn.Conv2d(128, 128, 4),
        nn.Conv2d(128, 128, 3, padding="same"),
        nn.ConvTranspose2d(128, 128, 3),
        nn.utils.parametrizations.spectral_norm(nn.Conv2d(128, 128, 3)),
    ]
    network = nn.Sequential(*fitting, *others)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert use_winograd(network) == len(fitting)
    assert [type(m) is WinogradConv2d for m in network] == [True] * len(fitting) + [False] * len(others)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert use_winograd(network) == 0  # once is enough


@pytest.mark.parametrize("padding", ["zeros", "reflect", "replicate", "circular"])
def test_a_layer_pads_as_before(padding: str):
    torch.manual_seed(0)
    plain = nn.Conv2d(128, 128, 3, padding=(1, 2), padding_mode=padding)
    fast = copy.deepcopy(plain)
    use_winograd(fast)
    x = torch.randn(1, 128, 33, 40)
    assert torch.allclose(fast(x), plain(x), atol=1e-5)
    assert type(fast(x).grad_fn).__name__ != type(plain(x).grad_fn).__name__  # it did go another way


def test_other_precisions_and_few_places_go_pytorchs_way(monkeypatch):
    def refuse(*_):
        raise AssertionError("Winograd's way")

    conv = nn.Conv2d(128, 128, 3)
    use_winograd(conv)
    monkeypatch.setattr(winograd, "winograd_conv2d", refuse)
    conv(torch.randn(1, 128, 8, 8))
    many = torch.randn(1, 128, 40, 40)
    with pytest.raises(AssertionError, match="Winograd"):
        conv(many)
    with torch.autocast("cpu", torch.bfloat16):
        assert conv(many).dtype == torch.bfloat16
    traced = torch.jit.trace(conv, many, check_trace=False)
    exported = torch.export.export(conv, (many,), strict=True)
    assert "convolution" in str(traced.inlined_graph) and "conv2d" in str(exported.graph)
    conv.double()(many.double())
    assert conv.float().to("meta")(many.to("meta")).shape == (1, 128, 38, 38)


def test_fake_tensors_and_single_pictures_go_pytorchs_way():
    """A fake tensor that stayed as memory to compute in would have left later results unwritten."""
    conv = nn.Conv2d(128, 128, 3)
    use_winograd(conv)
    x = torch.randn(1, 128, 40, 40)
    plain = F.conv2d(x, conv.weight, conv.bias)
    winograd.ROOMS.by_name.clear()
    with FakeTensorMode(allow_non_fake_inputs=True):
        conv(torch.empty(1, 128, 50, 50))
        conv(x)
    assert torch.allclose(conv(x), plain, atol=1e-5)
    assert torch.allclose(conv(x[0]), plain[0], atol=1e-5)


def test_a_programs_defaults_are_not_asked():
    """Of type and device: it computes with float32 on a CPU, in which its matrices are made at import."""
    x, weight = torch.randn(1, 8, 40, 40), torch.randn(8, 8, 3, 3)
    winograd.ROOMS.by_name.clear()
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):
            matrix = winograd._interpolating(0.5, 2.0)[0]
            y = winograd_conv2d(x, weight)
    finally:
        torch.set_default_dtype(torch.float32)
    assert (matrix.dtype, matrix.device.type) == (torch.float32, "cpu")
    assert torch.allclose(y, F.conv2d(x, weight), atol=1e-4)


def test_1024_places_are_enough_of_one_picture_or_of_all_together(monkeypatch):
    seen = []
    monkeypatch.setattr(winograd, "winograd_conv2d", lambda x, *_: seen.append(tuple(x.shape)))
    conv = nn.Conv2d(128, 128, 3)
    use_winograd(conv)
    enough = [(1, 128, 32, 32), (4, 128, 16, 16)]
    for shape in [*enough, (1, 128, 31, 33), (3, 128, 31, 11)]:
        conv(torch.zeros(shape))
    assert seen == enough
    other = nn.Conv2d(128, 128, 3)
    use_winograd(other, least_places=1025)
    other(torch.zeros(enough[0]))
    assert seen == enough


def test_convolutions_that_resample_multiply_less_too():
    assert use_winograd(ResnetGenerator(blocks=0, downsample="antialias", upsample="antialias")) == 2


def test_what_pytorch_refuses_is_refused():
    with pytest.raises(RuntimeError, match="channels"):
        WinogradConv2d(128, 128, 3)(torch.randn(1, 64, 40, 40))
    with pytest.raises(RuntimeError, match="Kernel size"):
        WinogradConv2d(128, 128, 3)(torch.randn(1, 128, 2, 600))
    with pytest.raises(RuntimeError, match="type"):
        WinogradConv2d(128, 128, 3).double()(torch.randn(1, 128, 40, 40))


def test_threads_and_modes_share_nothing():
    """The memory that calls compute in is each thread's own, and serves with and without inference mode."""
    torch.manual_seed(0)
    weight = torch.randn(8, 8, 3, 3)
    pictures = [torch.randn(1, 8, 10 + 2 * n, 30) for n in range(16)]
    plain = [F.conv2d(x, weight) for x in pictures]
    with torch.inference_mode():
        winograd_conv2d(torch.randn(1, 8, 80, 80), weight)
    with ThreadPoolExecutor(8) as threads:
        for _ in range(5):
            fast = list(threads.map(lambda x: winograd_conv2d(x, weight), pictures))
            assert all(torch.allclose(a, b, atol=1e-4) for a, b in zip(fast, plain, strict=True))
    winograd_conv2d(pictures[0].requires_grad_(), weight).sum().backward()


def test_nobodys_precision_of_products_rounds_it():
    """PyTorch would take bf16 for the products of matrices, and float32 for convolutions."""
    conv, x = nn.Conv2d(128, 128, 3), torch.randn(1, 128, 40, 40)
    use_winograd(conv)
    plain, before = F.conv2d(x, conv.weight, conv.bias), torch.get_float32_matmul_precision()
    assert not torch.equal(conv(x), plain)
    torch.set_float32_matmul_precision("medium")
    try:
        assert torch.equal(conv(x), plain)
    finally:
        torch.set_float32_matmul_precision(before)
    assert not torch.equal(conv(x), plain)


def test_backwards_inside_autocast_it_stays_float32():
    x, weight, bias = drawn(1, 18, 26)
    y = winograd_conv2d(x, weight, bias).square().sum()
    expected = torch.autograd.grad(y, (x, weight, bias), retain_graph=True)
    with torch.autocast("cpu", torch.bfloat16):
        found = torch.autograd.grad(y, (x, weight, bias))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_no_picture_has_no_gradient():
    x, weight, bias = drawn(0, 18, 26)
    assert not any(
        gradient.any() for gradient in torch.autograd.grad(winograd_conv2d(x, weight, bias).sum(), (weight, bias))
    )


def test_a_weight_that_changes_when_it_is_asked_for_is_asked_for_once():
    """Spectral norm's, in training."""
    x, found = torch.randn(1, 128, 40, 40), []
    for multiplies_less in (False, True):
        torch.manual_seed(0)
        conv = nn.Conv2d(128, 128, 3)
        if multiplies_less:
            use_winograd(conv)
        found.append(nn.utils.parametrizations.spectral_norm(conv)(x))
    assert torch.allclose(*found, atol=1e-5)
