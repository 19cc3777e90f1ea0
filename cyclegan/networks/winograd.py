"""3x3 convolutions with fewer products, for float32 on a CPU (Lavin and Gray 2016, arXiv 1509.09308).

F(4x4, 3x3) there: Y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A makes 4x4 results out of a tile d of 6x6 numbers and a kernel g by 36
products, where sums over the kernel take 144. Over channels it is summed before A, so the products are those of 36
pairs of matrices. With the points of the paper (0, ±1, ±2) it rounds by 2e-6 to 4e-6 of the values; with better ones
(Barabasz et al. 2018, arXiv 1803.10986) by 9e-7 to 2e-6, where plain sums round by 2e-7 to 9e-7. GPUs' libraries choose
such ways by themselves, oneDNN on a CPU has none.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyclegan.networks import strips
from cyclegan.networks.layers import eager_on_cpu

LEAST_CHANNELS, LEAST_PLACES = 128, 1024  # with fewer, what goes on around the products takes what they save
SINGLE: dict[str, Any] = {"dtype": torch.float32, "device": "cpu"}  # whatever a program's defaults are
OUT, SEEN = 4, 6  # results of a tile a side, and the numbers that they see
TILES = 256  # at a time: enough for fast products of matrices, few enough to stay in a cache


def _interpolating(p: float, q: float) -> list[Tensor]:
    """Aᵀ (4, 6), Bᵀ (6, 6) and G (6, 3) from the points 0, ±p, ±q and infinity."""
    p2, q2 = p**2, q**2
    at_p, at_q = 0.5 / (p2 * (p2 - q2)), 0.5 / (q2 * (q2 - p2))
    a_t = [[1, 1, 1, 1, 1, 0], [0, p, -p, q, -q, 0], [0, p2, p2, q2, q2, 0], [0, p**3, -(p**3), q**3, -(q**3), 1]]
    b_t = [
        [p2 * q2, 0, -p2 - q2, 0, 1, 0],
        [0, -p * q2, -q2, p, 1, 0],
        [0, p * q2, -q2, -p, 1, 0],
        [0, -q * p2, -p2, q, 1, 0],
        [0, q * p2, -p2, -q, 1, 0],
        [0, p2 * q2, 0, -p2 - q2, 0, 1],
    ]
    g = [[1 / (p2 * q2), 0, 0]]
    g += [[scale, scale * x, scale * x**2] for scale, x in ((at_p, p), (at_p, -p), (at_q, q), (at_q, -q))]
    return [torch.tensor(matrix, **SINGLE) for matrix in (a_t, b_t, [*g, [0, 0, 1]])]


A_T, B_T, G = _interpolating(5 / 8, 3 / 2)  # of all sixteenths up to 2 those that round least
A, B, G_T = (matrix.T.contiguous() for matrix in (A_T, B_T, G))


def use_winograd(network: nn.Module, least_places: int = LEAST_PLACES) -> int:
    """Let 3x3 convolutions of many channels compute this way, and tell how many; weights, names and hooks stay.

    Args:
        network: is changed in place
        least_places: of all pictures of a batch together; fewer go PyTorch's way
    """
    fitting = [m for m in network.modules() if type(m) in (nn.Conv2d, strips.Conv2d) and _fits(m)]
    for conv in fitting:
        conv.__class__, conv.least_places = WinogradConv2d, least_places
    return len(fitting)


def _fits(conv: nn.Conv2d) -> bool:
    dense = conv.kernel_size == (3, 3) and conv.stride == conv.dilation == (1, 1) and conv.groups == 1
    return dense and conv.padding != "same" and min(conv.in_channels, conv.out_channels) >= LEAST_CHANNELS


class WinogradConv2d(nn.Conv2d):
    """Winograd's way for enough float32 on a CPU, and PyTorch's for all else."""

    least_places = LEAST_PLACES

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight  # once: with spectral norm, to ask for it is to change it
        if not (_can(x) and weight.dtype == x.dtype and x[:, 0].numel() >= self.least_places):
            return self._conv_forward(x, weight, self.bias)
        if any(self.padding):
            mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
            x = F.pad(x, self._reversed_padding_repeated_twice, mode)
        return winograd_conv2d(x, weight, self.bias)


def _can(x: Tensor) -> bool:
    if not eager_on_cpu(x):
        return False
    if type(x) is not Tensor or x.dim() != 4:  # a fake one, say, or a picture without a batch
        return False
    whole = torch.backends.mkldnn.matmul.fp32_precision in ("none", "ieee")  # else its matrices would be rounded
    return whole and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")


def winograd_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.conv2d(x, weight, bias)` but for rounding: (N, C, H + 2, W + 2), (K, C, 3, 3), (K) -> (N, K, H, W).

    The result is in channels_last; x and weight are copied if they are not.
    """
    height, width = (side - 2 for side in x.shape[2:])
    if min(height, width, len(x)) < 1:
        return F.conv2d(x, weight, bias)  # which tells what is wrong, if anything is
    if height % OUT or width % OUT:
        x = F.pad(x, (0, -width % OUT, 0, -height % OUT))
    return _Winograd.apply(x, weight, bias).permute(0, 3, 1, 2)[:, :, :height, :width]


class _Winograd(torch.autograd.Function):
    """For whole tiles, to (N, H, W, K): were it to return a view, nobody could write over it later.

    Down the rows for all tiles of a part at once, then along them for one of the six rows at a time: what six pairs of
    matrices are made of and make stays in a cache.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        x, kernels = x.permute(0, 2, 3, 1), _half_kernels(weight)
        y = x.new_empty(len(x), x.shape[1] - 2, x.shape[2] - 2, len(weight))
        for some, rows, seen in _parts(y):
            bands, places = _rows(B_T, x[some, seen], "bands"), _split(y[some, rows], OUT)
            lines = _room("lines", SEEN, places[0].numel() // (OUT * len(weight)), OUT, len(weight))
            for band, kernel, line in zip(bands, kernels, lines, strict=True):
                torch.matmul(A_T, _products(_tiles(band), _matrices(kernel)), out=line)
            results = torch.mm(A_T, lines.flatten(1), out=_room("columns", OUT, lines[0].numel()))
            torch.add(results.view_as(places), 0.0 if bias is None else bias, out=places)
        return y

    @staticmethod
    @torch.autocast("cpu", enabled=False)
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        (x, weight), (of_x_too, of_weight_too, of_bias_too) = ctx.saved_tensors, ctx.needs_input_grad
        of_bias = gradient.sum((0, 1, 2)) if of_bias_too else None
        if torch.is_grad_enabled():  # gradients of gradients are wanted, for which PyTorch's way has formulas
            plain = ([1, 1], [0, 0], [1, 1], False, [0, 0], 1, [of_x_too, of_weight_too, False])
            gradient = gradient.permute(0, 3, 1, 2)
            return *torch.ops.aten.convolution_backward(gradient, x, weight, None, *plain)[:2], of_bias
        x, gradient = x.permute(0, 2, 3, 1), gradient.contiguous()
        of_x = _gradient_of_x(gradient, weight).permute(0, 3, 1, 2) if of_x_too else None
        of_weight = _gradient_of_weight(gradient, x) if of_weight_too else None
        return of_x, of_weight, of_bias


def _gradient_of_x(gradient: Tensor, weight: Tensor) -> Tensor:
    """(N, H, W, K) and (K, C, 3, 3) -> (N, H + 2, W + 2, C)"""
    (n, height, width, _), c = gradient.shape, weight.shape[1]
    of_x, kernels = gradient.new_empty(n, height + 2, width + 2, c), _half_kernels(weight.transpose(0, 1))
    for some, rows, seen in _parts(gradient):
        lines = _rows(A, gradient[some, rows], "lines")
        of_bands = _room("bands", SEEN, *lines.shape[1:3], width + 2, c)
        for line, kernel, of_band in zip(lines, kernels, of_bands, strict=True):
            of_products = _times(A, line.view(-1, OUT, line.shape[-1]), "products")
            of_tiles = _times(B, _products(of_products, _matrices(kernel)), "tiles")
            _join(of_tiles.view(*line.shape[:2], -1, SEEN, c).transpose(3, 4), of_band, 2)
        of_rows = torch.mm(B, of_bands.flatten(1), out=_room("columns", SEEN, of_bands[0].numel()))
        places = of_x[some, seen]
        before = places[:, :2].clone() if rows.start else 0.0  # what the part above has added to them
        _join(of_rows.view_as(of_bands).permute(1, 2, 3, 4, 0), places, 1)
        places[:, :2] += before
    return of_x


def _gradient_of_weight(gradient: Tensor, x: Tensor) -> Tensor:
    """(N, H, W, K) and (N, H + 2, W + 2, C) -> (K, C, 3, 3)"""
    k, c = gradient.shape[-1], x.shape[-1]
    of_kernels = _room("kernels", SEEN, 3, k * c)
    for part, (some, rows, seen) in enumerate(_parts(gradient)):
        lines, bands = _rows(A, gradient[some, rows], "lines"), _rows(B_T, x[some, seen], "bands")
        for line, band, of_kernel in zip(lines, bands, of_kernels, strict=True):
            of_products = _times(A, line.view(-1, OUT, k), "products")
            of_matrices = _room("matrices", SEEN, k, c)
            # not as a convolution, for which both would have to be transposed
            torch.bmm(of_products.permute(1, 2, 0), _tiles(band).transpose(0, 1), out=of_matrices)
            of_kernel.addmm_(G_T, of_matrices.flatten(1), beta=min(part, 1))  # the first time over what lies there
    return torch.mm(G_T, of_kernels.flatten(1)).view(3, 3, k, c).permute(2, 3, 0, 1)


def _half_kernels(weight: Tensor) -> Tensor:
    """G g of all kernels: (K, C, 3, 3) -> (6, 3, K, C)."""
    rows = _room("columns", 3, 3, *weight.shape[:2]).copy_(weight.permute(2, 3, 0, 1))
    return torch.mm(G, rows.flatten(1), out=_room("kernels", SEEN, rows[0].numel())).view(SEEN, *rows.shape[1:])


def _matrices(kernel: Tensor) -> Tensor:
    """Times Gᵀ: (3, K, C) -> (6, K, C)."""
    return torch.mm(G, kernel.flatten(1), out=_room("matrices", SEEN, kernel[0].numel())).view(SEEN, *kernel.shape[1:])


def _products(rows: Tensor, matrices: Tensor) -> Tensor:
    """Each of six times its matrix: (T, 6, C) and (6, K, C) -> (T, 6, K).

    As a grouped convolution, which is oneDNN's: MKL, which has torch.bmm, is half as fast on AMD's processors. (On one
    thread PyTorch leaves it to oneDNN only if it is dilated, which along a single place means nothing.)
    """
    t, n, c = rows.shape
    kernels = matrices.flatten(0, 1)[..., None, None]
    y = F.conv2d(rows.view(1, t, 1, n * c).permute(0, 3, 1, 2), kernels, groups=n, dilation=(1, 2))
    return y.permute(0, 2, 3, 1).reshape(t, n, -1)


def _parts(y: Tensor) -> Iterator[tuple[slice, slice, slice]]:
    """Pictures, rows of results and the rows that these see, for about TILES tiles at a time."""
    n, height, width, _ = y.shape
    pictures, rows = max(1, OUT**2 * TILES // (height * width)), OUT * max(1, OUT * TILES // width)
    for first in range(0, n, pictures):
        for top in range(0, height, rows):
            yield slice(first, first + pictures), slice(top, top + rows), slice(top, top + rows + SEEN - OUT)


def _split(x: Tensor, size: int) -> Tensor:
    """So many rows at every fourth, as a view: (N, H, W, C) -> (size, N, h, W, C)."""
    return x.unfold(1, size, OUT).movedim(-1, 0)


def _rows(matrix: Tensor, x: Tensor, name: str) -> Tensor:
    """M d of all tiles d that are as high as M is wide: (N, H, W, C) -> (6, N, h, W, C)."""
    pieces = _split(x, matrix.shape[1])
    columns = _room("columns", *pieces.shape).copy_(pieces).flatten(1)
    return torch.mm(matrix, columns, out=_room(name, SEEN, columns.shape[1])).view(SEEN, *pieces.shape[1:])


def _tiles(band: Tensor) -> Tensor:
    """Times B, one of the six rows of all tiles: (N, h, W, C) -> (N h w, 6, C)."""
    pieces = band.unfold(2, SEEN, OUT).transpose(3, 4)
    return _times(B_T, _room("columns", *pieces.shape).copy_(pieces).flatten(0, 2), "tiles")


def _join(pieces: Tensor, whole: Tensor, dim: int) -> None:
    """Write the sum of pieces of six that begin at every fourth place and overlap: (…, 6) into (…)."""
    length = whole.shape[dim]
    whole.narrow(dim, 0, length - 2).unfold(dim, OUT, OUT).copy_(pieces[..., :OUT])
    whole.narrow(dim, length - 2, 2).zero_()
    whole.narrow(dim, OUT, length - OUT).unfold(dim, 2, OUT).add_(pieces[..., OUT:])


def _times(matrix: Tensor, columns: Tensor, name: str) -> Tensor:
    """(6, size) and (T, size, C) -> (T, 6, C)"""
    return torch.matmul(matrix, columns, out=_room(name, len(columns), len(matrix), columns.shape[-1]))


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
    room = ROOMS.by_name.get(name)
    if room is None or room.numel() < numbers:
        with torch.inference_mode(False):
            room = torch.empty(numbers, **SINGLE)
        if type(room) is Tensor:  # not a fake one, inside whose mode this is: at the next call nothing would be written
            ROOMS.by_name[name] = room
    return room[:numbers].view(shape)
