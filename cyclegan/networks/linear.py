"""Linear style transfer (Li, Liu, Kautz & Yang 2018, arXiv 1808.04537): a learnt matrix recolours the features."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import PositiveInt
from torch import Tensor, nn
from torch.func import functional_call

from cyclegan.networks.backbones import Vgg
from cyclegan.networks.layers import ChannelMeans, OfTheWhole
from cyclegan.networks.styled import Code, StyledGenerator


class MatrixBranch(OfTheWhole):
    """Features without their means -> a matrix: convolutions, products of their channels, a linear layer.

    (N, C, h, w), about 1 large -> (N, side, side)
    """

    def __init__(self, channels: int, side: int):
        super().__init__()
        half, quarter = channels // 2, channels // 4
        self.convolutions = nn.Sequential(
            *(nn.Conv2d(channels, half, 3, padding=1, padding_mode="reflect"), nn.ReLU()),
            *(nn.Conv2d(half, quarter, 3, padding=1, padding_mode="reflect"), nn.ReLU()),
            nn.Conv2d(quarter, side, 3, padding=1, padding_mode="reflect"),
        )
        self.linear = nn.Linear(side**2, side**2)

    def forward(self, centred: Tensor) -> Tensor:
        x = self.convolutions(centred).flatten(2)
        x = x / x.shape[2] ** 0.5  # before they are summed: half precision ends at 65504
        products = x @ x.transpose(1, 2)
        return self.linear(products.flatten(1)).view_as(products)

    @torch.no_grad()
    def start_as_identity(self) -> None:
        nn.init.zeros_(self.linear.weight)
        self.linear.bias.copy_(torch.eye(round(len(self.linear.bias) ** 0.5)).flatten())


class LinearGenerator(StyledGenerator):
    """Content and style give a matrix each; their product transforms the compressed features of the content.

    A style is its matrix and its means. The features are linear in both, so that a mean of codes is a mixture of what
    the styles make of the content.

    Args:
        in_channels: channels of the input
        out_channels: channels of the output
        encoder: vgg19 (the paper's) or vgg16
        layer: of it, whose features are transformed: relu4_1 or relu3_1 (the paper's two), or relu2_1
        matrix: channels of the compressed features, and sides of the matrices
    """

    def __init__(
        self,
        in_channels: PositiveInt = 3,
        out_channels: PositiveInt = 3,
        encoder: Vgg = "vgg19",
        layer: Literal["relu2_1", "relu3_1", "relu4_1"] = "relu4_1",
        matrix: PositiveInt = 32,
    ):
        super().__init__(in_channels, out_channels, encoder, layer)
        self.means = ChannelMeans()
        self.compress, self.uncompress = nn.Conv2d(self.channels, matrix, 1), nn.Conv2d(matrix, self.channels, 1)
        self.content_branch, self.style_branch = (MatrixBranch(self.channels, matrix) for _ in range(2))
        self._keeps(style_matrix=torch.eye(matrix)[None], style_mean=torch.zeros(1, self.channels, 1, 1))

    def code(self, style: Tensor) -> Code:
        features = self.features(style)
        mean = features.mean((2, 3), keepdim=True)
        return self.style_branch((features - mean) / self.scale), mean

    def restyled(self, features: Tensor, code: Code) -> Tensor:
        """Equations 2 and 4: T = T_s T_c, applied to the compressed features; then the style's means."""
        matrix, mean = code
        centred = features - self.means(features)
        compressed = self.compress(centred)
        transformed = matrix @ self.content_branch(centred / self.scale) @ compressed.flatten(2)
        return self.uncompress(transformed.view_as(compressed)) + mean

    @torch.no_grad()
    def start_as_identity(self) -> None:
        """Matrices that no picture changes yet, between a projection and its transpose: random ones start far off."""
        self.content_branch.start_as_identity()
        self.style_branch.start_as_identity()
        nn.init.orthogonal_(self.compress.weight)
        self.uncompress.weight.copy_(self.compress.weight.transpose(0, 1))

    def learn(self, features: Tensor, style: Tensor) -> tuple[Code, tuple[Tensor, ...]]:
        """The picture, whose losses do not reach the decoder, and the content decoded without any style."""
        code = self.code(style)
        frozen = {name: parameter.detach() for name, parameter in self.decoder.named_parameters()}
        picture = functional_call(self.decoder, frozen, (self.restyled(features, code) / self.scale,))
        return code, (picture, self.decoded(features))
