"""Convolutions whose weights' gradient is computed strip by strip where a picture is too large for a cache.

In float32 and channels_last oneDNN (3.12) reads a whole batch again for every few channels: from 240x240 places of 64
channels on, and for two of them, at a third to a sixth of its speed for smaller ones (docs/performance.md).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyclegan.networks.layers import eager_on_cpu

LARGE = 2**21  # numbers: 8 MiB
STRIP = 2**20


class Conv2d(nn.Conv2d):
    """PyTorch's, but for how its weights' gradient is computed."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight  # once: with spectral norm, to ask for it is to change it
        if not _pays(self, x, weight):
            return self._conv_forward(x, weight, self.bias)
        return _Strips.apply(x, weight, self.bias, False, self.stride, self.padding, (0, 0))


class ConvTranspose2d(nn.ConvTranspose2d):
    """PyTorch's, but for how its weights' gradient is computed."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        if output_size:
            return super().forward(x, output_size)
        weight, geometry = self.weight, (self.stride, self.padding, self.output_padding)
        if not _pays(self, x, weight, scale=self.stride[0] * self.stride[1]):
            return F.conv_transpose2d(x, weight, self.bias, *geometry, self.groups, self.dilation)
        return _Strips.apply(x, weight, self.bias, True, *geometry)


def _pays(conv: nn.Conv2d | nn.ConvTranspose2d, x: Tensor, weight: Tensor, scale: int = 1) -> bool:
    """Whether the larger side, which is `scale` times x for a transposed one, has enough numbers, and all else fits."""
    if not eager_on_cpu(x):
        return False
    single = x.dtype == weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    plain = conv.groups == 1 and conv.dilation == (1, 1) and conv.padding_mode == "zeros"
    if not (single and plain) or isinstance(conv.padding, str) or conv.padding[0] > conv.kernel_size[0]:
        return False
    learns = torch.is_grad_enabled() and weight.requires_grad
    channels = min(conv.in_channels, conv.out_channels)
    lies = x.is_contiguous(memory_format=torch.channels_last)  # a picture without a batch doesn't
    return learns and lies and x[:, 0].numel() * scale * channels > LARGE


class _Strips(torch.autograd.Function):
    """(N, C, H, W), weight, bias, whether it is transposed, stride, padding, output padding -> (N, K, H', W')"""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, transposed: bool, *geometry: Any) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.transposed, (ctx.stride, ctx.padding, ctx.output_padding) = transposed, geometry
        if transposed:
            return F.conv_transpose2d(x, weight, bias, *geometry)
        return F.conv2d(x, weight, bias, *geometry[:2])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        (x, weight), (of_x_too, of_weight_too, of_bias_too) = ctx.saved_tensors, ctx.needs_input_grad[:3]
        again = torch.is_grad_enabled()  # gradients of gradients are wanted, for which PyTorch's way has formulas
        geometry = (ctx.stride, ctx.padding, (1, 1), ctx.transposed, ctx.output_padding, 1)
        wanted = [of_x_too, of_weight_too and again, False]
        of_x, of_weight, _ = torch.ops.aten.convolution_backward(gradient, x, weight, None, *geometry, wanted)
        if of_weight_too and not again:
            pair = (gradient, x) if ctx.transposed else (x, gradient)
            of_weight = _gradient_of_weight(*pair, weight, ctx.stride, ctx.padding)
        of_bias = gradient.sum((0, 2, 3)) if of_bias_too else None
        return of_x, of_weight, of_bias, None, None, None, None


def _gradient_of_weight(
    x: Tensor, gradient: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    """Of a convolution of x, (N, C, H, W) and (N, K, H', W') -> (K, C, height, width)."""
    n, c, height, width = x.shape
    rows = max(1, STRIP // (n * c * width * stride[0]))
    total = torch.zeros_like(weight)
    for first in range(0, gradient.shape[2], rows):
        strip = gradient[:, :, first : first + rows]
        top = first * stride[0] - padding[0]
        bottom = top + (strip.shape[2] - 1) * stride[0] + weight.shape[2]
        seen = F.pad(x[:, :, max(top, 0) : bottom], (0, 0, max(-top, 0), max(bottom - height, 0)))
        geometry = (stride, (0, padding[1]), (1, 1), False, (0, 0), 1, [False, True, False])
        total += torch.ops.aten.convolution_backward(strip, seen, weight, None, *geometry)[1]
    return total
