"""Variational style transfer (TU Munich 2019): a style is a distribution over a small space, near a normal one."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import PositiveInt
from torch import Tensor, nn

from cyclegan.networks.backbones import Vgg
from cyclegan.networks.layers import InstanceNorm
from cyclegan.networks.styled import Code, StyledGenerator


class StyleEncoder(nn.Module):
    """(N, 1 or 3, h, w) in [-1, 1] -> mean and log variance, (N, size) each: convolutions and a mean over all places.

    No norms, which would take away what makes a style. Any size of pictures.
    """

    def __init__(self, width: int, size: int):
        super().__init__()
        widths = [width, width * 2, width * 4, width * 4, width * 4]
        layers: list[nn.Module] = [nn.Conv2d(3, width, 7, padding=3), nn.ReLU()]
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.ReLU()]
        self.convolutions = nn.Sequential(*layers)
        self.mean, self.log_variance = nn.Linear(widths[-1], size), nn.Linear(widths[-1], size)

    def forward(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        x = self.convolutions(picture.expand(-1, 3, -1, -1)).mean((2, 3))
        return self.mean(x), self.log_variance(x).clamp(-10, 10)


class VariationalGenerator(StyledGenerator):
    """A VGG for the content, an encoder of its own for the style, and a decoder with adaptive instance normalisation.

    A style is a vector, from which two layers make the means and deviations that the content's features are given.

    Args:
        in_channels: channels of the input
        out_channels: channels of the output
        encoder: of the content: vgg19 or vgg16
        layer: of it, whose features are restyled: relu4_1, relu3_1 or relu2_1
        size: of the vector
        width: channels of the style encoder's first convolution, a quarter of its last
    """

    def __init__(
        self,
        in_channels: PositiveInt = 3,
        out_channels: PositiveInt = 3,
        encoder: Vgg = "vgg19",
        layer: Literal["relu2_1", "relu3_1", "relu4_1"] = "relu4_1",
        size: PositiveInt = 64,
        width: PositiveInt = 64,
    ):
        super().__init__(in_channels, out_channels, encoder, layer)
        self.style_encoder = StyleEncoder(width, size)
        self.statistics = nn.Sequential(
            nn.Linear(size, self.channels), nn.ReLU(), nn.Linear(self.channels, 2 * self.channels)
        )
        self.norm = InstanceNorm(self.channels)  # a layer, so that tiles of a large picture can share its statistics
        self._keeps(style=torch.zeros(1, size))

    def code(self, style: Tensor) -> Code:
        """The middle of its distribution."""
        return (self.style_encoder(style)[0],)

    def around(self, style: Tensor, count: int, draw: torch.Generator | None = None) -> Code:
        """Drawn from the distribution of one picture's style."""
        mean, log_variance = self.style_encoder(style)
        noise = torch.randn((count, mean.shape[1]), generator=draw).to(mean)
        return (mean + (log_variance / 2).exp() * noise,)

    def restyled(self, features: Tensor, code: Code) -> Tensor:
        mean, deviation = self.statistics(*code)[..., None, None].chunk(2, 1)
        return self.scale * (self.norm(features) * F.softplus(deviation) + mean)

    def learn(self, features: Tensor, style: Tensor) -> tuple[Code, tuple[Tensor, ...]]:
        """The picture, the style's mean and log variance, and the picture's own mean.

        Where there are more contents than styles, they take the styles in turn, and of each the same draw.
        """
        mean, log_variance = self.style_encoder(style)
        drawn = mean + (log_variance / 2).exp() * torch.randn_like(mean)
        picture = self.decoded(self.restyled(features, (drawn.repeat(len(features) // len(drawn), 1),)))
        return (mean,), (picture, mean, log_variance, self.style_encoder(picture)[0])
