"""What generators of content and style have in common: a frozen encoder, a code for the style, a decoder."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from math import inf
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyclegan.networks.backbones import Backbone, Vgg, load_backbone, new_backbone

Code = tuple[Tensor, ...]  # what a generator keeps of a style: tensors whose first axis is that of the batch


class StyledGenerator(nn.Module):
    """(N, in, H, W) in [-1, 1] -> (N, out, H', W'), H' and W' rounded down to a multiple of `multiple`, in a style.

    It keeps a style, the mean of all that it has seen in training or what `take_style` was given, and so translates
    and exports like any other generator. The encoder's weights are buffers: part of its file, and nothing trains them.

    A method tells what a style is to it (`code`), what features of the content become in that style (`restyled`), and
    what its losses need (`learn`).

    Args:
        in_channels: channels of the input
        out_channels: channels of the output
        encoder: vgg19 or vgg16
        layer: of it, whose features are restyled: reluN_1
    """

    def __init__(self, in_channels: int, out_channels: int, encoder: Vgg, layer: str):
        super().__init__()
        self.encoder_name, self.layer = encoder, layer
        self.encoder = reflecting(new_backbone(encoder, [layer], persistent=True))
        self.channels = self.encoder.convolutions()[-1].out_channels
        self.decoder = nn.Sequential(*_mirrored(self.encoder.parts, out_channels))
        self.register_buffer("scale", torch.ones(1))  # of the features: fresh layers want numbers around 1
        self.register_buffer("strength", torch.ones(1))
        self.register_buffer("seen", torch.zeros(1))
        self.kept_names: list[str] = []
        self.multiple = 2 ** (int(layer[4]) - 1)
        self.smallest = 2 * self.multiple  # reflection needs more pixels than it adds
        self.checkpointing = False  # the training loop switches it; there is nothing to recompute here

    @abstractmethod
    def code(self, style: Tensor) -> Code:
        """(N, 3, h, w) in [-1, 1], of any size -> what is kept of their styles. Means of codes are styles as well."""

    @abstractmethod
    def restyled(self, features: Tensor, code: Code) -> Tensor:
        """(N, C, h, w) of the content -> the same in that style; a code of one goes with any number of contents."""

    @abstractmethod
    def learn(self, features: Tensor, style: Tensor) -> tuple[Code, tuple[Tensor, ...]]:
        """Features of the content and pictures of styles -> their code, and the picture and what else losses need."""

    def forward(
        self, content: Tensor, style: Tensor | None = None, learning: bool = False
    ) -> Tensor | tuple[Tensor, ...]:
        """The content in the style that is kept, or in a given one; `learning`: what `learn` tells.

        In training, every style that is learnt from is added to the average that is kept.
        """
        features = self.features(content)
        if not learning:
            return self.paint(features, [self.kept() if style is None else self.code(style)])
        code, told = self.learn(features, style)
        if self.training:
            self._remember(code)
        return told

    def features(self, picture: Tensor) -> Tensor:
        return self.encoder(picture)[self.layer]

    def paint(self, features: Tensor, codes: Sequence[Code], shares: Sequence[Tensor | float] = (1.0,)) -> Tensor:
        """Features of the content in one style or several -> the picture.

        Args:
            features: (N, C, h, w)
            codes: of the styles
            shares: of each, a number, or by place: (N or 1, 1, H, W), of any size; what they lack of 1 is the content's

        By `strength` what is decoded lies between the content's own features (0) and those in the styles (1).
        """
        shares = [_fitted(share, features) if isinstance(share, Tensor) else share for share in shares]
        change = sum(
            share * (self.restyled(features, code) - features) for share, code in zip(shares, codes, strict=True)
        )
        return self.decoded(features + self.strength * change).clamp(-1, 1)

    def decoded(self, features: Tensor) -> Tensor:
        return self.decoder(features / self.scale)

    @torch.no_grad()
    def take_style(
        self, pictures: Sequence[Tensor] = (), weights: Sequence[float] | None = None, strength: float = 1.0
    ) -> None:
        """Keep this style from now on: a mixture, by weights, of pictures (1, 3, h, w) in [-1, 1].

        Without pictures, the kept one stays. Raises ValueError.
        """
        if not 0 <= strength <= 1:
            raise ValueError(f"strength: 0 to 1 expected, found {strength}")
        weights = [1.0] * len(pictures) if weights is None else list(weights)
        if len(weights) != len(pictures) or (pictures and not (min(weights) >= 0 and 0 < sum(weights) < inf)):
            raise ValueError(
                f"weights: one, at least 0 and finite, for each of {len(pictures)} styles; found {weights}"
            )
        self.strength.fill_(strength)
        if pictures:
            self.keep(mixed([self.code(picture.to(self.strength)) for picture in pictures], weights))

    def around(self, style: Tensor, count: int, draw: torch.Generator | None = None) -> Code:
        """Codes near that of a picture, `count` of them. Raises ValueError where a style has no neighbourhood."""
        raise ValueError("its styles are points without a spread; a variational generator's have one")

    def kept(self) -> Code:
        return tuple(self.get_buffer(name) for name in self.kept_names)

    @torch.no_grad()
    def keep(self, code: Code) -> None:
        """This is the style from now on; each tensor (1, …)."""
        for kept, value in zip(self.kept(), code, strict=True):
            kept.copy_(value)

    def style_layers(self) -> dict[str, float]:
        """The first layer of each block up to the encoder's, in equal shares: where losses compare styles."""
        blocks = range(1, int(self.layer[4]) + 1)
        return {f"relu{block}_1": 1 / len(blocks) for block in blocks}

    def load_encoder(self, layers: Sequence[str], weights: Path | str | None = None) -> Backbone:
        """Give the encoder the weights that it was published with; returns it with these layers, for losses.

        How large its features are, which differs from file to file, is kept with it. `weights`: see `load_backbone`.
        """
        backbone = reflecting(load_backbone(self.encoder_name, [*layers, self.layer], weights=weights))
        for ours, theirs in zip(self.encoder.convolutions(), backbone.convolutions(), strict=False):
            ours.weight.copy_(theirs.weight)
            ours.bias.copy_(theirs.bias)
        with torch.no_grad():
            self.scale.copy_(self.features(_any_picture()).std().clamp(min=1e-6))
        return backbone

    def _keeps(self, **code: Tensor) -> None:
        """For constructors: the tensors of a code, by the names of their buffers, as they are before any style."""
        for name, value in code.items():
            self.register_buffer(name, value)
        self.kept_names = list(code)

    @torch.no_grad()
    def _remember(self, code: Code) -> None:
        self.seen += 1
        share = (1 / self.seen).clamp(min=0.001)
        for kept, value in zip(self.kept(), code, strict=True):
            kept.lerp_(value.mean(0, keepdim=True).to(kept), share)


def mixed(codes: Sequence[Code], weights: Sequence[float]) -> Code:
    """The weighted mean."""
    total = sum(weights)
    return tuple(
        sum(weight / total * value for weight, value in zip(weights, values, strict=True))
        for values in zip(*codes, strict=True)
    )


def reflecting(network: Backbone) -> Backbone:
    """Convolutions that continue the picture by its mirror image: black edges would be a part of every style."""
    for convolution in network.convolutions():
        convolution.padding_mode = "reflect"
    return network


def _any_picture() -> Tensor:
    """(1, 3, 64, 64) in [-1, 1]: coarse and fine noise with about a photograph's contrasts; always the same."""
    draw = torch.Generator().manual_seed(0)
    noise = [torch.randn((1, 3, side, side), generator=draw) for side in (2, 4, 8, 16, 32, 64)]
    return sum(0.2 * F.interpolate(layer, (64, 64), mode="bilinear") for layer in noise).clamp(-1, 1)


def _fitted(share: Tensor, features: Tensor) -> Tensor:
    """A map of any size -> the places of the features."""
    return F.interpolate(share.to(features), features.shape[2:], mode="area")


def _mirrored(encoder: nn.ModuleList, out_channels: int) -> list[nn.Module]:
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
