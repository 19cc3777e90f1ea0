"""Norm layers, and others that look at all places, with statistics from somewhere else: all tiles, or a thumbnail."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from cyclegan.devices import as_double
from cyclegan.networks.layers import OfTheWhole

SHARED_NORMS = (nn.InstanceNorm2d, nn.GroupNorm)


class Moments:
    """Sums over all windows of a stage, by channel, in double precision."""

    def __init__(self):
        self.count, self.sum, self.squares = 0, 0.0, 0.0

    def add(self, values: Tensor) -> None:
        self.device, values = values.device, as_double(values)
        self.count += values.shape[2] * values.shape[3]
        self.sum = self.sum + values.sum(dim=(0, 2, 3))
        self.squares = self.squares + values.square().sum(dim=(0, 2, 3))

    def mean_and_variance(self, groups: int) -> tuple[Tensor, Tensor]:
        """(1, channels, 1, 1) each; channels of a group share theirs."""
        channels = len(self.sum)
        mean, square = (total.view(groups, -1).mean(1) / self.count for total in (self.sum, self.squares))
        variance = (square - mean.square()).clamp(min=0)
        return tuple(value.repeat_interleave(channels // groups).view(1, -1, 1, 1) for value in (mean, variance))


def groups_of(norm: nn.Module, channels: int) -> int:
    return norm.num_groups if isinstance(norm, nn.GroupNorm) else channels


class FixedNorm(nn.Module):
    """A norm layer whose statistics are given, (1, channels, 1, 1) each."""

    def __init__(self, mean: Tensor, factor: Tensor, bias: Tensor):
        super().__init__()
        self.register_buffer("mean", mean.float())
        self.register_buffer("factor", factor.float())
        self.register_buffer("bias", bias.float())

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) * self.factor + self.bias


class Fixed(nn.Module):
    """What a layer gave for the whole picture."""

    def __init__(self, value: Tensor):
        super().__init__()
        self.register_buffer("value", value)

    def forward(self, _: Tensor) -> Tensor:
        return self.value


def fixed_norm(norm: nn.Module, moments: Moments) -> nn.Module:
    """What a norm layer does at these statistics, on the device where their values were."""
    mean, variance = moments.mean_and_variance(groups_of(norm, len(moments.sum)))
    factor, bias = (variance + norm.eps).rsqrt(), torch.zeros_like(mean)
    if norm.affine:
        weight, bias = (as_double(value).view(1, -1, 1, 1) for value in (norm.weight, norm.bias))
        factor = factor * weight
    return FixedNorm(mean, factor, bias).to(moments.device)


def with_statistics_of(generator: nn.Module, images: Tensor) -> nn.Module:
    """A copy of the generator whose norm layers, and those OfTheWhole, keep what they have on `images`."""
    fixed = copy.deepcopy(generator)
    whole = {name: layer for name, layer in fixed.named_modules() if isinstance(layer, OfTheWhole)}
    given: dict[str, Tensor] = {}
    for name, layer in whole.items():
        layer.register_forward_hook(lambda *call, name=name: given.update({name: call[2]}))
    norms = {name: layer for name, layer in fixed.named_modules() if isinstance(layer, SHARED_NORMS)}
    moments = {name: Moments() for name in norms}
    for name, norm in norms.items():
        norm.register_forward_pre_hook(lambda _, inputs, name=name: moments[name].add(inputs[0]))
    fixed(images)
    for name, norm in norms.items():
        fixed.set_submodule(name, fixed_norm(norm, moments[name]))
    for name, value in given.items():
        fixed.set_submodule(name, Fixed(value))
    return fixed
