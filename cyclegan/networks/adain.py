"""AdaIN (Huang & Belongie 2017, arXiv 1703.06868): give the content's features the style's means and deviations."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import PositiveInt
from torch import Tensor

from cyclegan.networks.backbones import Vgg
from cyclegan.networks.layers import InstanceNorm
from cyclegan.networks.styled import Code, StyledGenerator


class AdainGenerator(StyledGenerator):
    """A VGG that stays as it was trained, adaptive instance normalisation, and a decoder that mirrors the VGG.

    Several styles are mixed as what they make of the content's features (section 6.3), which is a mixture of their
    statistics.

    Args:
        in_channels: channels of the input
        out_channels: channels of the output
        encoder: vgg19 (the paper's) or vgg16
        layer: of it, where the statistics are exchanged: relu4_1 in the paper; relu3_1 and relu2_1 change less
    """

    def __init__(
        self,
        in_channels: PositiveInt = 3,
        out_channels: PositiveInt = 3,
        encoder: Vgg = "vgg19",
        layer: Literal["relu2_1", "relu3_1", "relu4_1"] = "relu4_1",
    ):
        super().__init__(in_channels, out_channels, encoder, layer)
        self.norm = InstanceNorm(self.channels)  # a layer, so that tiles of a large picture can share its statistics
        self._keeps(style_mean=torch.zeros(1, self.channels, 1, 1), style_deviation=torch.ones(1, self.channels, 1, 1))

    def code(self, style: Tensor) -> Code:
        return statistics(self.features(style))

    def restyled(self, features: Tensor, code: Code) -> Tensor:
        """Equation 8: the features with other statistics."""
        mean, deviation = code
        return self.norm(features) * deviation + mean

    def learn(self, features: Tensor, style: Tensor) -> tuple[Code, tuple[Tensor, ...]]:
        """The picture, and the features that were decoded."""
        code = self.code(style)
        wanted = self.restyled(features, code)
        return code, (self.decoded(wanted), wanted)


def statistics(features: Tensor) -> Code:
    """Means and deviations of each channel over the places: twice (N, C, 1, 1)."""
    exact = features.to(torch.promote_types(features.dtype, torch.float32))  # half precision ends at 65504
    mean = exact.mean((2, 3), keepdim=True)
    deviation = ((exact - mean).square().mean((2, 3), keepdim=True) + 1e-5).sqrt()
    return mean.to(features), deviation.to(features)
