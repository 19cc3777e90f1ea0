"""3x3 convolutions with fewer products, for float32 on a CPU (Lavin and Gray 2016, arXiv 1509.09308).

F(2x2, 3x3) there: Y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A makes 2x2 results out of a tile d of 4x4 numbers and a kernel g by 16
products, where sums over the kernel take 36. Over channels it is summed before A, so the products are those of 16 pairs
of matrices. It rounds by 5e-7 of the values, plain sums by 2e-7 to 9e-7. GPUs' libraries choose such ways by
themselves, oneDNN on a CPU has none.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEAST_CHANNELS, LEAST_PLACES = 128, 1024  # with fewer, what goes on around the products takes what they save
SINGLE: dict[str, Any] = {"dtype": torch.float32, "device": "cpu"}  # whatever a program's defaults are
TILES = 1024  # at a time: enough for fast products of matrices, few enough to stay in a cache


def _both_ways(*rows: tuple[float, ...]) -> Tensor:
    """M x Mᵀ of a matrix x as one product with its numbers in a column."""
    matrix = torch.tensor(rows, **SINGLE)
    return torch.kron(matrix, matrix)


A_T = _both_ways((1.0, 1.0, 1.0, 0.0), (0.0, 1.0, -1.0, -1.0))  # (4, 16)
B_T = _both_ways((1.0, 0.0, -1.0, 0.0), (0.0, 1.0, 1.0, 0.0), (0.0, -1.0, 1.0, 0.0), (0.0, 1.0, 0.0, -1.0))  # (16, 16)
G = _both_ways((1.0, 0.0, 0.0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0.0, 0.0, 1.0))  # (16, 9)


def use_winograd(network: nn.Module) -> int:
    """Let 3x3 convolutions of many channels compute this way, and tell how many; weights, names and hooks stay."""
    fitting = [module for module in network.modules() if type(module) is nn.Conv2d and _fits(module)]
    for conv in fitting:
        conv.__class__ = WinogradConv2d
    return len(fitting)


def _fits(conv: nn.Conv2d) -> bool:
    dense = conv.kernel_size == (3, 3) and conv.stride == conv.dilation == (1, 1) and conv.groups == 1
    return dense and conv.padding != "same" and min(conv.in_channels, conv.out_channels) >= LEAST_CHANNELS


class WinogradConv2d(nn.Conv2d):
    """Winograd's way for enough float32 on a CPU, and PyTorch's for all else."""

    def forward(self, x: Tensor) -> Tensor:
        if not _pays(x):
            return super().forward(x)
        if any(self.padding):
            mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
            x = F.pad(x, self._reversed_padding_repeated_twice, mode)
        return winograd_conv2d(x, self.weight, self.bias)


def _pays(x: Tensor) -> bool:
    if x.device.type != "cpu" or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    if type(x) is not Tensor or x.dim() != 4:  # a fake one, say, or a picture without a batch
        return False
    single = x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    return single and x[:, 0].numel() >= LEAST_PLACES


def winograd_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.conv2d(x, weight, bias)` but for rounding: (N, C, H + 2, W + 2), (K, C, 3, 3), (K) -> (N, K, H, W).

    The result is in channels_last; x and weight are copied if they are not.
    """
    height, width = (side - 2 for side in x.shape[2:])
    if height % 2 or width % 2:
        x = F.pad(x, (0, width % 2, 0, height % 2))
    return _Winograd.apply(x, weight, bias).permute(0, 3, 1, 2)[:, :, :height, :width]


class _Winograd(torch.autograd.Function):
    """For even H and W, to (N, H, W, K): were it to return a view, nobody could write over it later."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        x, matrices = _channels_last(x), _matrices(weight)
        y = x.new_empty(len(x), x.shape[1] - 2, x.shape[2] - 2, len(weight))
        for some, rows, seen in _parts(y):
            tiles = _through(B_T, _tiles(x[some, seen], 4), "tiles")
            products = torch.bmm(tiles, matrices.transpose(1, 2), out=_room("products", *tiles.shape[:2], len(weight)))
            results = torch.mm(A_T, products.flatten(1), out=_room("columns", 4, products[0].numel()))
            places = _tiles(y[some, rows], 2)
            torch.add(results.view_as(places), 0.0 if bias is None else bias, out=places)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        (x, weight), (of_x_too, of_weight_too, of_bias_too) = ctx.saved_tensors, ctx.needs_input_grad
        of_bias = gradient.sum((0, 1, 2)) if of_bias_too else None
        if torch.is_grad_enabled():  # gradients of gradients are wanted, for which PyTorch's way has formulas
            plain = ([1, 1], [0, 0], [1, 1], False, [0, 0], 1, [of_x_too, of_weight_too, False])
            gradient = gradient.permute(0, 3, 1, 2)
            return *torch.ops.aten.convolution_backward(gradient, x, weight, None, *plain)[:2], of_bias
        x, gradient, matrices = _channels_last(x), gradient.contiguous(), _matrices(weight)
        of_x, of_matrices = torch.zeros_like(x), _room("gradients of matrices", *matrices.shape).zero_()
        for some, rows, seen in _parts(gradient):
            of_products = _through(A_T.T, _tiles(gradient[some, rows], 2), "products")
            if of_weight_too:
                tiles = _through(B_T, _tiles(x[some, seen], 4), "tiles")
                of_matrices.baddbmm_(of_products.transpose(1, 2), tiles)
            if of_x_too:
                of_d = torch.bmm(of_products, matrices, out=_room("tiles", *of_products.shape[:2], x.shape[-1]))
                of_tiles = torch.mm(B_T.T, of_d.flatten(1), out=_room("columns", 16, of_d[0].numel()))
                places = [place for row in _tiles(of_x[some, seen], 4) for place in row]
                for place, of_place in zip(places, of_tiles, strict=True):
                    place += of_place.view_as(place)  # tiles overlap
        of_weight = _kernels(of_matrices) if of_weight_too else None
        return of_x.permute(0, 3, 1, 2) if of_x_too else None, of_weight, of_bias


def _channels_last(x: Tensor) -> Tensor:
    """(N, C, H, W) -> (N, H, W, C)"""
    return x.permute(0, 2, 3, 1).contiguous()


def _matrices(weight: Tensor) -> Tensor:
    """G g Gᵀ of all kernels: (K, C, 3, 3) -> (16, K, C)."""
    kernels = weight.permute(0, 2, 3, 1).flatten(1, 2)
    return torch.matmul(G, kernels, out=_room("matrices", len(weight), 16, kernels.shape[-1])).transpose(0, 1)


def _kernels(of_matrices: Tensor) -> Tensor:
    """The kernels' gradients from those of their matrices: (16, K, C) -> (K, C, 3, 3)."""
    return (G.T @ of_matrices.transpose(0, 1)).unflatten(1, (3, 3)).permute(0, 3, 1, 2)


def _parts(y: Tensor) -> Iterator[tuple[slice, slice, slice]]:
    """Pictures, rows of results and the rows that these see, for about TILES tiles at a time."""
    n, height, width, _ = y.shape
    pictures, rows = max(1, 4 * TILES // (height * width)), 2 * max(1, 2 * TILES // width)
    for first in range(0, n, pictures):
        for top in range(0, height, rows):
            yield slice(first, first + pictures), slice(top, top + rows), slice(top, top + rows + 2)


def _tiles(x: Tensor, size: int) -> Tensor:
    """Squares of that size at every second place, as a view: (N, H, W, C) -> (size, size, N, h, w, C)."""
    return x.unfold(1, size, 2).unfold(2, size, 2).permute(4, 5, 0, 1, 2, 3)


def _through(matrix: Tensor, tiles: Tensor, name: str) -> Tensor:
    """M d Mᵀ of all tiles d: (size, size, N, h, w, C) -> (16, N h w, C)."""
    columns = _room("columns", *tiles.shape).copy_(tiles).view(matrix.shape[1], -1)
    return torch.mm(matrix, columns, out=_room(name, 16, columns.shape[1])).view(16, -1, tiles.shape[-1])


class _Rooms(threading.local):
    def __init__(self) -> None:
        self.by_name: dict[str, Tensor] = {}


ROOMS = _Rooms()


def _room(name: str, *shape: int) -> Tensor:
    """Memory of this thread for what doesn't outlive a call, and the same at the next call.

    glibc (2.36) does not give a freed block to a tensor of the same size, whose alignment wants some more: between the
    tensors that stay, blocks of this size would leave holes.
    """
    numbers = math.prod(shape)
    if name not in ROOMS.by_name or ROOMS.by_name[name].numel() < numbers:
        with torch.inference_mode(False):
            ROOMS.by_name[name] = torch.empty(numbers, **SINGLE)
    return ROOMS.by_name[name][:numbers].view(shape)
