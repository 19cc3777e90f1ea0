"""The convolutions of VGG-16 and VGG-19 (Simonyan and Zisserman 2015), whose features tell what a picture shows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from cyclegan.networks.pretrained import WeightsError, WeightsFile, find_weights

Vgg = Literal["vgg16", "vgg19"]
Pooling = Literal["max", "average"]
CONVOLUTIONS = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}  # of each block
WIDTHS = (64, 128, 256, 512, 512)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, of pictures in [0, 1]
WEIGHTS = {
    "vgg16": WeightsFile(
        names=("vgg16-397923af.pth",),
        url="https://download.pytorch.org/models/vgg16-397923af.pth",
        sha256="397923af",
        variable="CYCLEGAN_VGG16_WEIGHTS",
    ),
    "vgg19": WeightsFile(
        names=("vgg19-dcbb9e9d.pth",),
        url="https://download.pytorch.org/models/vgg19-dcbb9e9d.pth",
        sha256="dcbb9e9d",
        variable="CYCLEGAN_VGG19_WEIGHTS",
    ),
}


class VggFeatures(nn.Module):
    """(N, 1 or 3, H, W) in [-1, 1] -> (N, channels, h, w) by layer; nothing after the last of them is kept.

    Args:
        network: vgg16 or vgg19
        layers: relu1_1, relu1_2, relu2_1 … relu5_4: after the activation, before the pool
        pooling: max as trained, or average (smoother: Gatys et al. 2016)

    Raises ValueError for a layer that is not there, and for none.
    """

    def __init__(self, network: Vgg = "vgg19", layers: Sequence[str] = ("relu4_1",), pooling: Pooling = "max"):
        super().__init__()
        known = places(network)
        if not layers:
            raise ValueError("none to compare; name one or more, e.g. [relu4_1]")
        if unknown := [layer for layer in layers if layer not in known]:
            raise ValueError(f"{network} has no layer {unknown[0]!r}; choices: {', '.join(known)}")
        self.layers = {known[layer]: layer for layer in layers}
        self.features = _convolutions(network, pooling)[: max(self.layers) + 1]
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        x = ((image + 1) / 2 - self.mean) / self.std  # a grey picture becomes three channels here
        found = {}
        for place, layer in enumerate(self.features):
            x = layer(x)
            if place in self.layers:
                found[self.layers[place]] = x
        return found


def load_vgg(
    network: Vgg = "vgg19",
    layers: Sequence[str] = ("relu4_1",),
    pooling: Pooling = "max",
    weights: Path | str | None = None,
    allow_random_weights: bool = False,
) -> VggFeatures:
    """VggFeatures as trained on ImageNet, frozen.

    `weights` is torchvision's file, or one with as many of its `features.*` as the layers need; without it, see
    `find_weights`. With `allow_random_weights` no file is read: for tests. Raises WeightsError.
    """
    vgg = VggFeatures(network, layers, pooling)
    if not allow_random_weights:
        path = find_weights(WEIGHTS[network], weights)
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            vgg.load_state_dict({name: state[name] for name in vgg.state_dict()})
        except Exception as error:  # a damaged file raises anything from EOFError to UnpicklingError
            raise WeightsError(f"{path} holds no weights of {network} that torchvision's names would fit") from error
    return vgg.eval().requires_grad_(False)


def places(network: Vgg) -> dict[str, int]:
    """Where each activation is among torchvision's `features`."""
    found, place = {}, 0
    for block, count in enumerate(CONVOLUTIONS[network], 1):
        for convolution in range(1, count + 1):
            found[f"relu{block}_{convolution}"] = place + 1
            place += 2
        place += 1  # the pool
    return found


def _convolutions(network: Vgg, pooling: Pooling) -> nn.Sequential:
    layers: list[nn.Module] = []
    channels = 3
    for count, width in zip(CONVOLUTIONS[network], WIDTHS, strict=True):
        for _ in range(count):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
            channels = width
        layers.append(nn.MaxPool2d(2) if pooling == "max" else nn.AvgPool2d(2))
    return nn.Sequential(*layers)
