"""The U-Net generator of pix2pix (Isola et al. 2017, section 6.1.1)."""

from __future__ import annotations

from typing import Annotated

import torch
from annotated_types import Ge
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor, nn

from cyclegan.networks.layers import Norm, bias_before, norm_layer


class UnetBlock(nn.Module):
    """One level: halve the sides, go through the inner levels, double them, and set the input beside the result.

    `model` keeps the reference's order, so that its checkpoints fit: activation, convolution, norm, inner level,
    activation, transposed convolution, norm, dropout; the innermost level has no inner one and no norm before it.
    """

    def __init__(self, outer: int, inner: int, norm: Norm, dropout: float = 0.0, submodule: nn.Module | None = None):
        super().__init__()
        bias = bias_before(norm)
        down = [nn.LeakyReLU(0.2), nn.Conv2d(outer, inner, 4, 2, 1, bias=bias)]
        if submodule:
            down += [norm_layer(norm, inner), submodule]
        up_channels = inner * 2 if submodule else inner
        up = [nn.ReLU(), nn.ConvTranspose2d(up_channels, outer, 4, 2, 1, bias=bias), norm_layer(norm, outer)]
        self.model = nn.Sequential(*down, *up, *([nn.Dropout(dropout)] if dropout else []))

    def forward(self, x: Tensor) -> Tensor:
        # The reference activates in place, so that its shortcut carries the activated tensor: so does ours.
        x = self.model[0](x)
        inner = x
        for layer in list(self.model)[1:]:
            inner = layer(inner)
        return torch.cat([x, inner], 1)


class _Outermost(nn.Module):
    def __init__(self, in_channels: int, out_channels: int, width: int, norm: Norm, submodule: nn.Module):
        super().__init__()
        self.model = nn.Sequential(
            nn.Conv2d(in_channels, width, 4, 2, 1, bias=bias_before(norm)),
            submodule,
            nn.ReLU(),
            nn.ConvTranspose2d(width * 2, out_channels, 4, 2, 1),
            nn.Tanh(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class UnetGenerator(nn.Module):
    """(N, in, H, W) in [-1, 1] -> (N, out, H, W) in [-1, 1]; H and W must be multiples of `multiple` = 2**downs.

    Args:
        in_channels: channels of the input
        out_channels: channels of the output
        width: channels of the outermost level; doubled up to eight times that
        downs: levels; 7 is the reference's unet_128, 8 its unet_256
        norm: instance, batch, group or none
        dropout: probability of dropping an activation in the inner 8-fold levels; 0 leaves the layer out
    """

    def __init__(
        self,
        in_channels: PositiveInt = 3,
        out_channels: PositiveInt = 3,
        width: PositiveInt = 64,
        downs: Annotated[int, Ge(5)] = 8,
        norm: Norm = "instance",
        dropout: NonNegativeFloat = 0.0,
    ):
        super().__init__()
        self.multiple = self.smallest = 2**downs
        block = UnetBlock(width * 8, width * 8, norm)
        for _ in range(downs - 5):
            block = UnetBlock(width * 8, width * 8, norm, dropout, block)
        for factor in (4, 2, 1):
            block = UnetBlock(width * factor, width * factor * 2, norm, submodule=block)
        self.model = _Outermost(in_channels, out_channels, width, norm, block)

    def forward(self, image: Tensor) -> Tensor:
        return self.model(image)
