"""U-GAT-IT's networks (Kim et al. 2020, arXiv 1907.10830): attention from class activation maps, and AdaLIN."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Annotated

import torch
import torch.nn.functional as F
from annotated_types import Ge
from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm
from torch.utils.checkpoint import checkpoint

from cyclegan.networks.layers import ConvToPicture, ReflectionPad, norm_layer, padded


class Attention(nn.Module):
    """Weigh each channel by how much it speaks for a domain (Zhou et al. 2016), once by its mean, once by its maximum.

    (N, C, h, w) -> (N, C, h, w) and logits (N, 2). `wrap` may normalise the two layers that classify.
    """

    def __init__(self, channels: int, activation: nn.Module, wrap: Callable[[nn.Module], nn.Module] = lambda x: x):
        super().__init__()
        self.mean, self.largest = (wrap(nn.Linear(channels, 1, bias=False)) for _ in range(2))
        self.mix, self.activation = nn.Conv2d(channels * 2, channels, 1), activation

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        weights = [self.mean.weight, self.largest.weight]  # (1, C); a spectral norm computes them: asked for once
        pooled = [x.mean((2, 3)), x.amax((2, 3))]
        logits = [F.linear(value, weight) for value, weight in zip(pooled, weights, strict=True)]
        x = torch.cat([x * weight[:, :, None, None] for weight in weights], 1)
        return self.activation(self.mix(x)), torch.cat(logits, 1)


class LayerInstanceNorm(nn.Module):
    """`rho` of instance norm and the rest of layer norm, channel by channel; equation 1.

    `rho` lies in [0, 1]: whoever trains it clamps it after each update, as the authors do. Gain and shift are given
    (AdaLIN), or learnt where `affine`.
    """

    def __init__(self, channels: int, rho: float, affine: bool = False):
        super().__init__()
        self.rho = nn.Parameter(torch.full((1, channels, 1, 1), rho))
        if affine:
            self.gain, self.shift = nn.Parameter(torch.ones(1, channels)), nn.Parameter(torch.zeros(1, channels))

    def forward(self, x: Tensor, gain: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
        gain, shift = (self.gain, self.shift) if gain is None else (gain, shift)
        mixed = self.rho * _standardised(x, (2, 3)) + (1 - self.rho) * _standardised(x, (1, 2, 3))
        return mixed * gain[:, :, None, None] + shift[:, :, None, None]


class PlainBlock(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, channels: int):
        super().__init__()
        self.body = nn.Sequential(*_conv(channels, channels, 3), *_conv(channels, channels, 3)[:-1])

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class AdaptiveBlock(nn.Module):
    """A residual block whose norms take gain and shift from the attention's features."""

    def __init__(self, channels: int):
        super().__init__()
        self.first, self.second = (nn.Conv2d(channels, channels, 3, bias=False) for _ in range(2))
        self.norm_first, self.norm_second = (LayerInstanceNorm(channels, rho=0.9) for _ in range(2))

    def forward(self, x: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
        y = F.relu(self.norm_first(self.first(padded(x, 1, "reflect")), gain, shift))
        return x + self.norm_second(self.second(padded(y, 1, "reflect")), gain, shift)


class UgatitGenerator(nn.Module):
    """(N, in, H, W) in [-1, 1] -> (N, out, H', W') in [-1, 1], H' and W' rounded up to multiples of 4.

    The authors' light version: gain and shift come from the features' means, so that pictures may have any size.

    Args:
        in_channels: channels of the input
        out_channels: channels of the output
        width: channels after the first convolution; doubled by each of two down-samplings
        blocks: residual blocks before the attention, and adaptive ones after it
    """

    def __init__(
        self,
        in_channels: PositiveInt = 3,
        out_channels: PositiveInt = 3,
        width: PositiveInt = 64,
        blocks: NonNegativeInt = 4,
    ):
        super().__init__()
        self.multiple, self.smallest = 4, 8
        self.checkpointing = False  # trade time for memory; the training loop switches it
        inner = width * 4
        self.encoder = nn.Sequential(
            *_conv(in_channels, width, 7), *_conv(width, width * 2, 3, 2), *_conv(width * 2, inner, 3, 2)
        )
        self.before = nn.ModuleList(PlainBlock(inner) for _ in range(blocks))
        self.attention = Attention(inner, nn.ReLU())
        self.features = nn.Sequential(
            nn.Linear(inner, inner, bias=False), nn.ReLU(), nn.Linear(inner, inner, bias=False), nn.ReLU()
        )
        self.gain, self.shift = (nn.Linear(inner, inner, bias=False) for _ in range(2))
        self.after = nn.ModuleList(AdaptiveBlock(inner) for _ in range(blocks))
        self.decoder = nn.Sequential(
            *_up(inner),
            *_up(inner // 2),
            ReflectionPad(3),
            ConvToPicture(width, out_channels, 7, bias=False),
            nn.Tanh(),
        )

    def forward(self, image: Tensor, attention: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """The translation; with `attention` also (N, 2) logits, high where the picture is taken for the source's."""
        x = self.encoder(image)
        for block in self.before:
            x = self._through(block, x)
        x, logits = self.attention(x)
        style = self.features(x.mean((2, 3)))
        gain, shift = self.gain(style), self.shift(style)
        for block in self.after:
            x = self._through(block, x, gain, shift)
        x = self.decoder(x)
        return (x, logits) if attention else x

    def _through(self, block: nn.Module, *given: Tensor) -> Tensor:
        return checkpoint(block, *given, use_reentrant=False) if self.checkpointing else block(*given)


class UgatitDiscriminator(nn.Module):
    """(N, in, H, W) in [-1, 1] -> scores of a global and a local part, a map and its attention's logits (N, 2) each.

    All layers are spectrally normalised. H and W must be at least 3 * 2**(global_layers - 2).

    Args:
        in_channels: channels of the input
        width: channels of the first layer; doubled by each layer
        global_layers: layers of the part that sees most of the picture
        local_layers: layers of the part that sees patches
    """

    depth = "global_layers"  # the option to change where crops are small

    def __init__(
        self,
        in_channels: PositiveInt = 3,
        width: PositiveInt = 64,
        global_layers: Annotated[int, Ge(3)] = 7,
        local_layers: Annotated[int, Ge(3)] = 5,
    ):
        super().__init__()
        self.parts = nn.ModuleList(_Part(in_channels, width, layers) for layers in (global_layers, local_layers))

    def forward(self, image: Tensor) -> list[Tensor]:
        return [score for part in self.parts for score in part(image)]


class _Part(nn.Module):
    def __init__(self, in_channels: int, width: int, layers: int):
        super().__init__()
        widths = [in_channels, *(width * 2**i for i in range(layers - 1))]
        convs = []
        for i, (source, target) in enumerate(pairwise(widths)):
            stride = 1 if i == layers - 2 else 2
            conv = spectral_norm(nn.Conv2d(source, target, 4, stride))
            convs += [ReflectionPad(1), conv, nn.LeakyReLU(0.2)]
        self.model = nn.Sequential(*convs)
        self.attention = Attention(widths[-1], nn.LeakyReLU(0.2), spectral_norm)
        self.last = nn.Sequential(ReflectionPad(1), spectral_norm(nn.Conv2d(widths[-1], 1, 4, bias=False)))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        x, logits = self.attention(self.model(image))
        return self.last(x), logits


def _standardised(x: Tensor, dims: tuple[int, ...]) -> Tensor:
    variance, mean = torch.var_mean(x, dims, correction=0, keepdim=True)
    return (x - mean) * torch.rsqrt(variance + 1e-5)


def _conv(source: int, target: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    conv = nn.Conv2d(source, target, kernel, stride, bias=False)
    return [ReflectionPad(kernel // 2), conv, norm_layer("instance", target), nn.ReLU()]


def _up(channels: int) -> list[nn.Module]:
    half = channels // 2
    conv = nn.Conv2d(channels, half, 3, bias=False)
    norm = LayerInstanceNorm(half, rho=0.0, affine=True)
    return [nn.Upsample(scale_factor=2), ReflectionPad(1), conv, norm, nn.ReLU()]
