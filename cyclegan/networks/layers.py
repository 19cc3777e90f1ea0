"""Layers that several networks share: normalisation by name, padding by name, blurred resampling."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Norm = Literal["instance", "batch", "group", "none"]
Padding = Literal["reflect", "replicate", "zero"]


def norm_layer(norm: Norm, channels: int) -> nn.Module:
    """Instance norm without parameters or statistics and batch norm with both, as in the reference.

    Raises ValueError for channels that make no 32 groups.
    """
    if norm == "instance":
        return InstanceNorm(channels)
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    if norm == "group":
        if channels > 32 and channels % 32:
            raise ValueError(
                f"norm=group has 32 groups, and {channels} channels cannot be shared out among them: "
                "take a power of two or a multiple of 32 as width, or another norm"
            )
        return nn.GroupNorm(min(32, channels), channels)
    return nn.Identity()


class InstanceNorm(nn.InstanceNorm2d):
    """On a CPU with right gradients and, in channels_last, fast.

    What PyTorch (2.15) does there: for a batch of one in channels_last it reads the incoming gradient as if it were
    contiguous; forwards it copies channels_last to contiguous and back, for which batch norm has kernels of its own,
    and for one picture that is the same; and without weights it keeps statistics in the precision of the input.
    """

    def __init__(self, channels: int):
        super().__init__(channels)

    def forward(self, x: Tensor) -> Tensor:
        if not eager_on_cpu(x) or x.dim() != 4:  # a picture without a batch
            return super().forward(x)
        weight = bias = None
        if x.dtype.itemsize == 2:
            weight, bias = x.new_ones(x.shape[1], dtype=torch.float32), x.new_zeros(x.shape[1], dtype=torch.float32)
        if _only_channels_last(x):
            normed = [F.batch_norm(image, None, None, weight, bias, True, eps=self.eps) for image in x.split(1)]
            return normed[0] if len(normed) == 1 else torch.cat(normed)
        y = F.instance_norm(x, None, None, weight, bias, eps=self.eps)
        return y.flatten(1).reshape(y.shape)  # views that cost nothing forwards: the gradient becomes contiguous


def eager_on_cpu(x: Tensor) -> bool:
    """Whether a CPU computes with x now: no other device, no compiler, exporter or trace that would keep how.

    Nor transforms of torch.func or derivatives forwards, which know PyTorch's own functions only.
    """
    if x.device.type != "cpu" or torch.compiler.is_compiling() or torch.jit.is_tracing():
        return False
    return not torch._C._are_functorch_transforms_active() and torch.autograd.forward_ad._current_level < 0


def _only_channels_last(x: Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


class ConvToPicture(nn.Conv2d):
    """A convolution to three channels or so, which a CPU computes for four places at once.

    oneDNN computes 16 channels, however few there are (8 with AVX2). Four kernels, one place larger either way and with
    the weights in one of their four corners, make the four places of a square into channels of one: the same sums.
    """

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight  # once: with spectral norm, to ask for it is to change it
        if not self._pays(x):
            return self._conv_forward(x, weight, self.bias)
        moved = [F.pad(weight, (right, 1 - right, down, 1 - down)) for down in (0, 1) for right in (0, 1)]
        bias = None if self.bias is None else self.bias.repeat_interleave(4)
        return F.pixel_shuffle(F.conv2d(x, torch.stack(moved, 1).flatten(0, 1), bias, stride=2), 2)

    def _pays(self, x: Tensor) -> bool:
        if not eager_on_cpu(x):
            return False
        plain = self.stride == self.dilation == (1, 1) and self.padding == (0, 0) and self.groups == 1
        whole = all((side - kernel) % 2 == 1 for side, kernel in zip(x.shape[-2:], self.kernel_size, strict=True))
        return plain and whole and x.dim() == 4 and self.out_channels <= 4 and x.dtype != torch.float64  # not oneDNN's


class OfTheWhole(nn.Module):
    """Gives something about all places of its input at once: tiles of a picture take it from the whole."""


class ChannelMeans(OfTheWhole):
    """(N, C, h, w) -> (N, C, 1, 1)"""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3), keepdim=True)


def bias_before(norm: Norm) -> bool:
    """Whether a convolution before this norm has a bias: not if the norm brings its own."""
    return norm in ("instance", "none")


class ReflectionPad(nn.ReflectionPad2d):
    """In the precision of its input, see `padded`."""

    def forward(self, x: Tensor) -> Tensor:
        return padded(x, self.padding[0], "reflect")


class ReplicationPad(nn.ReplicationPad2d):
    """In the precision of its input, see `padded`."""

    def forward(self, x: Tensor) -> Tensor:
        return padded(x, self.padding[0], "replicate")


def padding_layer(padding: Padding, size: int) -> nn.Module:
    return {"reflect": ReflectionPad, "replicate": ReplicationPad, "zero": nn.ZeroPad2d}[padding](size)


def padded(x: Tensor, size: int, mode: Literal["reflect", "replicate"]) -> Tensor:
    """(N, C, H, W) -> (N, C, H + 2 size, W + 2 size), in the precision of x.

    Under autocast, PyTorch (2.15) would pad in float32 on a CPU: copies of values that the next convolution rounds
    again, forwards and backwards.
    """
    if x.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
        return F.pad(x, (size,) * 4, mode=mode)
    with torch.autocast("cpu", enabled=False):
        return F.pad(x, (size,) * 4, mode=mode)


def _blur(taps: list[float], channels: int) -> Tensor:
    line = torch.tensor(taps) / sum(taps)
    return torch.outer(line, line).repeat(channels, 1, 1, 1)  # (channels, 1, taps, taps)


class BlurDown(nn.Module):
    """Halve the sides after a (1, 2, 1) blur (Zhang 2019, "Making convolutional networks shift-invariant again")."""

    def __init__(self, channels: int):
        super().__init__()
        self.register_buffer("filt", _blur([1, 2, 1], channels))  # CUT's checkpoints hold it under this name

    def forward(self, x: Tensor) -> Tensor:
        x = padded(x, 1, "reflect")
        return F.conv2d(x, self.filt.to(x.dtype), stride=2, groups=x.shape[1])


class BlurUp(nn.Module):
    """Double the sides with a (1, 3, 3, 1) blur: bilinear up-sampling written as a transposed convolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.register_buffer("filt", _blur([1, 3, 3, 1], channels) * 4)

    def forward(self, x: Tensor) -> Tensor:
        x = padded(x, 1, "replicate")
        x = F.conv_transpose2d(x, self.filt.to(x.dtype), stride=2, padding=2, groups=x.shape[1])
        return x[:, :, 1:-1, 1:-1]
