"""Several patch discriminators, each for a smaller copy of the picture (Wang et al. 2018, pix2pixHD, section 3.2)."""

from __future__ import annotations

import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor, nn

from cyclegan.networks.layers import Norm
from cyclegan.networks.patchgan import PatchDiscriminator


class MultiscaleDiscriminator(nn.Module):
    """(N, in, H, W) in [-1, 1] -> a list of (N, 1, h, w) scores, of the whole size, half of it, a quarter ….

    The losses of the scales add up, as in the paper.

    Args:
        in_channels: channels of the input
        width: channels of each one's first layer; doubled by each layer up to eight times that
        layers: each one's strided layers before the last two
        norm: instance, batch, group or none
        spectral: spectral normalisation of every convolution (Miyato et al. 2018)
        scales: discriminators; the smallest one's picture must still have 8 * 2**(layers - 1) pixels a side or more
    """

    depth = "scales"  # the option to change where crops are small

    def __init__(
        self,
        in_channels: PositiveInt = 3,
        width: PositiveInt = 64,
        layers: PositiveInt = 3,
        norm: Norm = "instance",
        spectral: bool = False,
        scales: PositiveInt = 3,
    ):
        super().__init__()
        self.scales = nn.ModuleList(
            PatchDiscriminator(in_channels, width, layers, norm, spectral) for _ in range(scales)
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        scores = []
        for discriminator in self.scales:
            scores.append(discriminator(image))
            image = F.avg_pool2d(image, 3, stride=2, padding=1, count_include_pad=False)
        return scores
