"""Layers that several networks share: normalisation by name, padding by name, blurred resampling."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Norm = Literal["instance", "batch", "group", "none"]
Padding = Literal["reflect", "replicate", "zero"]


def norm_layer(norm: Norm, channels: int) -> nn.Module:
    """Instance norm without parameters or statistics and batch norm with both, as in the reference."""
    if norm == "instance":
        return InstanceNorm(channels)
    if norm == "batch":
        return nn.BatchNorm2d(channels)
    if norm == "group":
        return nn.GroupNorm(min(32, channels), channels)
    return nn.Identity()


class InstanceNorm(nn.InstanceNorm2d):
    """With right gradients in training, whatever their memory layout.

    For a batch of one in channels_last, PyTorch (2.15, CPU) reads the incoming gradient as if it were contiguous. Two
    views that cost nothing forwards make it contiguous backwards.
    """

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return y.flatten(1).reshape(y.shape) if self.training else y


class OfTheWhole(nn.Module):
    """Gives something about all places of its input at once: tiles of a picture take it from the whole."""


class ChannelMeans(OfTheWhole):
    """(N, C, h, w) -> (N, C, 1, 1)"""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3), keepdim=True)


def bias_before(norm: Norm) -> bool:
    """Whether a convolution before this norm has a bias: not if the norm brings its own."""
    return norm in ("instance", "none")


def padding_layer(padding: Padding, size: int) -> nn.Module:
    return {"reflect": nn.ReflectionPad2d, "replicate": nn.ReplicationPad2d, "zero": nn.ZeroPad2d}[padding](size)


def _blur(taps: list[float], channels: int) -> Tensor:
    line = torch.tensor(taps) / sum(taps)
    return torch.outer(line, line).repeat(channels, 1, 1, 1)  # (channels, 1, taps, taps)


class BlurDown(nn.Module):
    """Halve the sides after a (1, 2, 1) blur (Zhang 2019, "Making convolutional networks shift-invariant again")."""

    def __init__(self, channels: int):
        super().__init__()
        self.register_buffer("filt", _blur([1, 2, 1], channels))  # CUT's checkpoints hold it under this name

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (1, 1, 1, 1), mode="reflect")
        return F.conv2d(x, self.filt.to(x.dtype), stride=2, groups=x.shape[1])


class BlurUp(nn.Module):
    """Double the sides with a (1, 3, 3, 1) blur: bilinear up-sampling written as a transposed convolution."""

    def __init__(self, channels: int):
        super().__init__()
        self.register_buffer("filt", _blur([1, 3, 3, 1], channels) * 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (1, 1, 1, 1), mode="replicate")
        x = F.conv_transpose2d(x, self.filt.to(x.dtype), stride=2, padding=2, groups=x.shape[1])
        return x[:, :, 1:-1, 1:-1]
