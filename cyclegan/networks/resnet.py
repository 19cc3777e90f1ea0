"""The ResNet generator of CycleGAN (Zhu et al. 2017, appendix 7.2; after Johnson et al. 2016)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cyclegan.networks.layers import (
    BlurDown,
    BlurUp,
    ConvToPicture,
    Norm,
    Padding,
    bias_before,
    norm_layer,
    padding_layer,
)
from cyclegan.networks.strips import Conv2d, ConvTranspose2d

PICTURE = -1  # among the numbers of layers: the picture itself


class ResnetBlock(nn.Module):
    """Two 3x3 convolutions beside a shortcut; no activation after the sum."""

    def __init__(self, channels: int, norm: Norm, padding: Padding, dropout: float):
        super().__init__()
        bias = bias_before(norm)
        self.conv_block = nn.Sequential(
            padding_layer(padding, 1),
            nn.Conv2d(channels, channels, 3, bias=bias),
            norm_layer(norm, channels),
            nn.ReLU(),
            *([nn.Dropout(dropout)] if dropout else []),
            padding_layer(padding, 1),
            nn.Conv2d(channels, channels, 3, bias=bias),
            norm_layer(norm, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_block(x)


class ResnetGenerator(nn.Module):
    """Down-sampling, residual blocks, up-sampling. (N, in, H, W) in [-1, 1] -> (N, out, H', W') in [-1, 1].

    H' is H rounded up to a multiple of `multiple` (4 with two down-samplings), and so is W'. Keys and parameter counts
    are those of the reference's `resnet_{blocks}blocks`, with `antialias` those of CUT's.

    Args:
        in_channels: channels of the input
        out_channels: channels of the output
        width: channels after the first convolution; doubled by each down-sampling
        blocks: residual blocks; 9 for 256x256 and larger, 6 for 128x128
        downs: down-samplings by two; the reference has 2
        norm: instance, batch, group or none
        padding: reflect, replicate or zero
        dropout: probability of dropping an activation inside the residual blocks; 0 leaves the layer out
        downsample: strided convolutions, or antialias (stride 1, then a blur)
        upsample: transpose (parity), resize (nearest, then a convolution: no checkerboard) or antialias
        skip: add the input to the output, so that the untrained generator is the identity
    """

    def __init__(
        self,
        in_channels: PositiveInt = 3,
        out_channels: PositiveInt = 3,
        width: PositiveInt = 64,
        blocks: NonNegativeInt = 9,
        downs: NonNegativeInt = 2,
        norm: Norm = "instance",
        padding: Padding = "reflect",
        dropout: NonNegativeFloat = 0.0,
        downsample: Literal["strided", "antialias"] = "strided",
        upsample: Literal["transpose", "resize", "antialias"] = "transpose",
        skip: bool = False,
    ):
        super().__init__()
        if skip and in_channels != out_channels:
            raise ValueError(f"skip adds input and output: {in_channels} and {out_channels} channels do not add up")
        self.skip, self.in_channels = skip, in_channels
        self.multiple = 2**downs
        self.smallest = max(2 * self.multiple, 4)  # reflection needs more pixels than it adds
        self.checkpointing = False  # trade time for memory; the training loop switches it
        layers = [padding_layer(padding, 3), *_conv(in_channels, width, norm, kernel=7)]
        for level in range(downs):
            layers += _down(width * 2**level, norm, downsample)
        layers += [ResnetBlock(width * self.multiple, norm, padding, dropout) for _ in range(blocks)]
        for level in reversed(range(downs)):
            layers += _up(width * 2 ** (level + 1), norm, upsample)
        last = nn.Identity() if skip else nn.Tanh()  # what is added must be able to turn white into black
        layers += [padding_layer(padding, 3), ConvToPicture(width, out_channels, 7), last]
        self.model = nn.Sequential(*layers)

    def forward(self, image: Tensor, layers: Sequence[int] = ()) -> Tensor | list[Tensor]:
        """The picture; or what the layers of `model` with these rising numbers give, and at its end PICTURE.

        Nothing is computed beyond the last of them. (Not a method of its own: only what goes through `forward` has
        the precision and the processes that the training loop sets up.)
        """
        x, features = image, []
        for number, layer in enumerate(self.model):
            if self.checkpointing and isinstance(layer, ResnetBlock):
                x = checkpoint(layer, x, use_reentrant=False)
            else:
                x = layer(x)
            if number in layers:
                features.append(x)
            if layers and number == layers[-1]:
                return features
        picture = (image + x).clamp(-1, 1) if self.skip else x
        return [*features, picture] if layers else picture

    def channels_after(self, layer: int) -> int:
        """Channels of what the layer with this number gives."""
        convolutions = [m for m in self.model[: layer + 1].modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
        return convolutions[-1].out_channels if convolutions else self.in_channels

    def landmarks(self) -> list[int]:
        """Numbers of the layers that CUT compares: padded pixels, down-samplings, first and fifth (or last) block."""
        blocks = [number for number, layer in enumerate(self.model) if isinstance(layer, ResnetBlock)]
        before = self.model[: blocks[0]] if blocks else []
        convolutions = [number for number, layer in enumerate(before) if isinstance(layer, nn.Conv2d)]
        return sorted({0, *convolutions[1:], *blocks[:1], *blocks[:5][-1:]})

    def start_as_identity(self) -> None:
        """With `skip`: silence the last convolution, so that what is added starts at zero."""
        if self.skip:
            nn.init.zeros_(self.model[-2].weight)
            nn.init.zeros_(self.model[-2].bias)


def _conv(source: int, target: int, norm: Norm, kernel: int = 3, stride: int = 1) -> list[nn.Module]:
    padding = 0 if kernel == 7 else 1  # the 7x7 ones come after a padding layer
    conv = Conv2d(source, target, kernel, stride, padding, bias=bias_before(norm))
    return [conv, norm_layer(norm, target), nn.ReLU()]


def _down(channels: int, norm: Norm, downsample: str) -> list[nn.Module]:
    if downsample == "antialias":
        return [*_conv(channels, channels * 2, norm), BlurDown(channels * 2)]
    return _conv(channels, channels * 2, norm, stride=2)


def _up(channels: int, norm: Norm, upsample: str) -> list[nn.Module]:
    if upsample == "antialias":
        return [BlurUp(channels), *_conv(channels, channels // 2, norm)]
    if upsample == "resize":
        return [nn.Upsample(scale_factor=2), *_conv(channels, channels // 2, norm)]
    half, bias = channels // 2, bias_before(norm)
    conv = ConvTranspose2d(channels, half, 3, stride=2, padding=1, output_padding=1, bias=bias)
    return [conv, norm_layer(norm, half), nn.ReLU()]
