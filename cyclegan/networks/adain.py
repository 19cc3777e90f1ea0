"""AdaIN (Huang & Belongie 2017, arXiv 1703.06868): give the content's features the style's means and deviations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from cyclegan.networks.backbones import without_parameters
from cyclegan.networks.layers import InstanceNorm
from cyclegan.networks.vgg import Vgg, VggFeatures


class AdainGenerator(nn.Module):
    """A VGG that stays as it was trained, adaptive instance normalisation, and a decoder that mirrors the VGG.

    (N, in, H, W) in [-1, 1] -> (N, out, H', W'), H' and W' rounded up to a multiple of `multiple`. It keeps a
    style, the mean of all that it has seen in training or what `take_style` was given, and so translates and exports
    like any other generator. The encoder's weights are buffers: part of its file, and nothing trains them.

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
        super().__init__()
        self.layer = layer
        self.encoder = reflecting(VggFeatures(encoder, [layer]))
        without_parameters(self.encoder, persistent=True)
        convolutions = [m for m in self.encoder.features if isinstance(m, nn.Conv2d)]
        channels = convolutions[-1].out_channels
        self.norm = InstanceNorm(channels)  # a layer, so that tiles of a large picture can share its statistics
        self.decoder = nn.Sequential(*_mirrored(self.encoder.features, out_channels))
        self.register_buffer("style_mean", torch.zeros(1, channels, 1, 1))
        self.register_buffer("style_deviation", torch.ones(1, channels, 1, 1))
        self.register_buffer("strength", torch.ones(1))
        self.register_buffer("seen", torch.zeros(1))
        self.multiple = 2 ** (int(layer[4]) - 1)
        self.smallest = 2 * self.multiple  # reflection needs more pixels than it adds
        self.checkpointing = False  # the training loop switches it; there is nothing to recompute here

    def forward(self, content: Tensor, style: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """The content in the style that is kept; or, with a style, in that one, and the features that were decoded.

        In training, every style is added to the average that is kept.
        """
        features = self.encoder(content)[self.layer]
        if style is None:
            return self.decoder(self.blended(features, self.style_mean, self.style_deviation)).clamp(-1, 1)
        mean, deviation = statistics(self.encoder(style)[self.layer])
        if self.training:
            self._remember(mean, deviation)
        wanted = self.adapted(features, mean, deviation)
        return self.decoder(wanted), wanted

    def adapted(self, features: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
        """Equation 8: the features with other statistics."""
        return self.norm(features) * deviation + mean

    def blended(self, features: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
        """By `strength`: 0 is the content's own features, 1 those in the style (section 6.3)."""
        return features + self.strength * (self.adapted(features, mean, deviation) - features)

    @torch.no_grad()
    def take_style(
        self, pictures: Sequence[Tensor] = (), weights: Sequence[float] | None = None, strength: float = 1.0
    ) -> None:
        """Keep this style from now on: a mixture, by weights, of pictures (1, 3, h, w) in [-1, 1].

        Several are mixed as what they make of the content's features (section 6.3), which is a mixture of their
        statistics. Without pictures, the kept one stays. Raises ValueError.
        """
        if not 0 <= strength <= 1:
            raise ValueError(f"strength: 0 to 1 expected, found {strength}")
        weights = [1.0] * len(pictures) if weights is None else list(weights)
        if len(weights) != len(pictures) or (pictures and not (min(weights) >= 0 and sum(weights) > 0)):
            raise ValueError(f"style weights: one, at least 0, for each of {len(pictures)} styles; found {weights}")
        self.strength.fill_(strength)
        if pictures:
            found = [statistics(self.encoder(picture.to(self.style_mean))[self.layer]) for picture in pictures]
            for kept, values in zip((self.style_mean, self.style_deviation), zip(*found, strict=True), strict=True):
                kept.copy_(sum(w * value for w, value in zip(weights, values, strict=True)) / sum(weights))

    @torch.no_grad()
    def _remember(self, mean: Tensor, deviation: Tensor) -> None:
        self.seen += 1
        share = (1 / self.seen).clamp(min=0.001)
        self.style_mean.lerp_(mean.mean(0, keepdim=True).to(self.style_mean), share)
        self.style_deviation.lerp_(deviation.mean(0, keepdim=True).to(self.style_mean), share)


def statistics(features: Tensor) -> tuple[Tensor, Tensor]:
    """Means and deviations of each channel over the places: twice (N, C, 1, 1)."""
    mean = features.mean((2, 3), keepdim=True)
    return mean, ((features - mean).square().mean((2, 3), keepdim=True) + 1e-5).sqrt()


def reflecting(network: nn.Module) -> nn.Module:
    """Convolutions that continue the picture by its mirror image: black edges would be a part of every style."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.padding_mode = "reflect"
    return network


def _mirrored(encoder: nn.Sequential, out_channels: int) -> list[nn.Module]:
    """The encoder's layers backwards, pools as enlargements; the last convolution makes the picture."""
    layers: list[nn.Module] = []
    for module in reversed(encoder):
        if isinstance(module, nn.MaxPool2d):
            layers.append(nn.Upsample(scale_factor=2))
        elif isinstance(module, nn.Conv2d):
            last = module.in_channels == 3
            target = out_channels if last else module.in_channels
            layers.append(nn.Conv2d(module.out_channels, target, 3, padding=1, padding_mode="reflect"))
            layers += [] if last else [nn.ReLU()]
    return layers
