"""Discriminators that judge patches (Isola et al. 2017, section 3.2.2) or single pixels."""

from __future__ import annotations

from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from cyclegan.networks.layers import BlurDown, Norm, bias_before, norm_layer


class PatchDiscriminator(nn.Module):
    """(N, in, H, W) in [-1, 1] -> (N, 1, h, w) scores, one a patch; with 3 layers each sees 70x70 pixels.

    Args:
        in_channels: channels of the input
        width: channels of the first layer; doubled by each layer up to eight times that
        layers: strided layers before the last two; 3 is the reference's `basic`
        norm: instance, batch, group or none
        spectral: spectral normalisation of every convolution (Miyato et al. 2018)
        antialias: halve the sides by a blur after the activation instead of by a stride, as CUT's does
    """

    depth = "layers"  # the option to change where crops are small

    def __init__(
        self,
        in_channels: PositiveInt = 3,
        width: PositiveInt = 64,
        layers: PositiveInt = 3,
        norm: Norm = "instance",
        spectral: bool = False,
        antialias: bool = False,
    ):
        super().__init__()
        halving = 1 if antialias else 2
        model = [nn.Conv2d(in_channels, width, 4, halving, 1), nn.LeakyReLU(0.2), *[BlurDown(width)] * antialias]
        channels = width
        for layer in range(1, layers + 1):
            wider = width * min(2**layer, 8)
            last = layer == layers
            model += [
                nn.Conv2d(channels, wider, 4, 1 if last else halving, 1, bias=bias_before(norm)),
                norm_layer(norm, wider),
                nn.LeakyReLU(0.2),
                *[BlurDown(wider)] * (antialias and not last),
            ]
            channels = wider
        model += [nn.Conv2d(channels, 1, 4, 1, 1)]
        self.model = nn.Sequential(*_normalised(model, spectral))

    def forward(self, image: Tensor) -> Tensor:
        return self.model(image)


class PixelDiscriminator(nn.Module):
    """(N, in, H, W) in [-1, 1] -> (N, 1, H, W) scores, one a pixel: colours only, no structure.

    Args:
        in_channels: channels of the input
        width: channels of the first layer
        norm: instance, batch, group or none
        spectral: spectral normalisation of every convolution (Miyato et al. 2018)
    """

    depth = "norm"

    def __init__(
        self,
        in_channels: PositiveInt = 3,
        width: PositiveInt = 64,
        norm: Norm = "instance",
        spectral: bool = False,
    ):
        super().__init__()
        bias = bias_before(norm)
        net = [
            nn.Conv2d(in_channels, width, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, width * 2, 1, bias=bias),
            norm_layer(norm, width * 2),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width * 2, 1, 1, bias=bias),
        ]
        self.net = nn.Sequential(*_normalised(net, spectral))

    def forward(self, image: Tensor) -> Tensor:
        return self.net(image)


def _normalised(layers: list[nn.Module], spectral: bool) -> list[nn.Module]:
    return [spectral_norm(layer) if spectral and isinstance(layer, nn.Conv2d) else layer for layer in layers]
