"""Networks trained to recognise pictures, whose features tell content and style: one way to name any of them.

    load_backbone("vgg19", ["relu1_1", "relu4_2"])(picture)["relu4_2"]

To add one: a function that cuts it into parts, and an entry in BACKBONES.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from cyclegan.networks.efficientnet import new_efficientnet_lite0, weights_of_efficientnet_lite0
from cyclegan.networks.pretrained import WeightsError, WeightsFile, find_weights, new_of_torchvision

Vgg = Literal["vgg19", "vgg16"]
BackboneName = Literal["vgg19", "vgg16", "alexnet", "googlenet", "squeezenet", "effnet-lite0"]
Pooling = Literal["max", "average"]
Parts = tuple[nn.Module, list[nn.Module], dict[str, int]]  # a network, what it computes in order, names of places there
RANDOM = "random"  # in place of a file of weights
SMALLEST = 32  # pixels of a side: of smaller pictures nothing is left in deep layers


class Backbone(nn.Module):
    """(N, 1 or 3, H, W) in [-1, 1] -> (N, channels, h, w) by layer; nothing after the last of them is kept.

    Its weights are buffers: nothing trains them.

    Args:
        parts: what is computed, in order
        layers: names, and after which part to look
        mean: of the network's input, by channel, of pictures in [0, 1]
        std: the same
        persistent: whether states hold its weights, which checkpoints need not repeat
    """

    def __init__(
        self,
        parts: Sequence[nn.Module],
        layers: dict[str, int],
        mean: Sequence[float],
        std: Sequence[float],
        persistent: bool = False,
    ):
        super().__init__()
        self.layers = layers
        self.parts = nn.ModuleList(parts[: max(layers.values()) + 1])
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1))
        self._without_parameters(persistent)
        self.eval()

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        x = ((image + 1) / 2 - self.mean) / self.std  # a grey picture becomes three channels here
        found = {}
        for place, part in enumerate(self.parts):
            x = part(x)
            found |= {name: _contiguous_backwards(x) for name, wanted in self.layers.items() if wanted == place}
        return found

    def train(self, mode: bool = True) -> Backbone:
        """Never: its norms keep the statistics that they were trained with."""
        return super().train(False)

    def convolutions(self) -> list[nn.Conv2d]:
        return [module for module in self.modules() if isinstance(module, nn.Conv2d)]

    def _without_parameters(self, persistent: bool) -> None:
        for module in self.modules():
            tensors = {**module._parameters, **module._buffers}
            for name, value in tensors.items():
                if value is not None:
                    delattr(module, name)
                    module.register_buffer(name, value.detach(), persistent=persistent)


def _contiguous_backwards(x: Tensor) -> Tensor:
    """The same, whose gradient arrives contiguous.

    A Gram matrix's is not, and then batch norm in eval mode gives wrong ones for a batch of one (PyTorch 2.15, CPU).
    """
    return x.flatten(1).reshape(x.shape)


def load_backbone(
    name: BackboneName = "vgg19",
    layers: Sequence[str] = ("relu4_1",),
    pooling: Pooling = "max",
    weights: Path | str | None = None,
) -> Backbone:
    """A backbone as trained on ImageNet, frozen.

    Args:
        name: of BACKBONES
        layers: see `layer_names`; or an index, "21", of torchvision's `features` where the network has them
        pooling: max as trained, or average (smoother: Gatys et al. 2016)
        weights: torchvision's file, or one with as much of it as the layers need; found or downloaded if not given
            (see `find_weights`); "random" for none, which a warning tells: tests have a use for that, nobody else

    Raises ValueError for unknown names, WeightsError for weights that are not there or do not fit, MissingPackageError.
    """
    network, used, places = _cut(name, layers)
    if weights == RANDOM:
        warnings.warn(f"{name} has random weights, as asked for: its features mean nothing", stacklevel=2)
        _draw_weights(used)
    else:
        _load(network, used, name, weights)
    return _backbone(name, used, places, pooling)


def new_backbone(name: BackboneName, layers: Sequence[str], persistent: bool = False) -> Backbone:
    """One without its weights, for somebody who has them. Raises ValueError for unknown names, MissingPackageError."""
    _, used, places = _cut(name, layers)
    _draw_weights(used)
    return _backbone(name, used, places, "max", persistent)


def layer_names(name: BackboneName) -> list[str]:
    """All names, from shallow to deep."""
    with torch.device("meta"):
        return list(_published(name).parts()[2])


def default_layers(name: BackboneName) -> tuple[list[str], list[str]]:
    """The layers that stand for content and for style where nobody names others."""
    return list(_published(name).content), list(_published(name).style)


def _cut(name: BackboneName, layers: Sequence[str]) -> tuple[nn.Module, nn.ModuleList, dict[str, int]]:
    """The network without memory, those of its parts that the layers need, and their places there."""
    published = _published(name)
    with torch.device("meta"):
        network, parts, places = published.parts()
    places |= {str(place): place for place in range(len(parts))}
    if not layers:
        raise ValueError("none to compare; name one or more, e.g. [relu4_1]")
    if unknown := [layer for layer in layers if layer not in places]:
        raise ValueError(f"{name} has no layer {unknown[0]!r}; choices: {', '.join(layer_names(name))}")
    chosen = {layer: places[layer] for layer in layers}
    return network, nn.ModuleList(parts[: max(chosen.values()) + 1]), chosen


def _backbone(
    name: BackboneName, parts: nn.ModuleList, layers: dict[str, int], pooling: Pooling, persistent: bool = False
) -> Backbone:
    published = _published(name)
    return Backbone([_prepared(part, pooling) for part in parts], layers, published.mean, published.std, persistent)


def _draw_weights(used: nn.Module) -> None:
    used.to_empty(device=torch.empty(0).device)  # meta where that is the current one
    for module in used.modules():
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d):
            module.reset_parameters()


def _load(network: nn.Module, used: nn.Module, name: str, weights: Path | str | None) -> None:
    if BACKBONES[name].file:
        path = find_weights(weights_file(name), weights)
    else:
        path = Path(weights or weights_of_efficientnet_lite0())
    needed = {id(value) for value in used.state_dict(keep_vars=True).values()}
    names = [key for key, value in network.state_dict(keep_vars=True).items() if id(value) in needed]
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        counters = {key: torch.tensor(0) for key in names if key.endswith("num_batches_tracked")}  # old files have none
        network.load_state_dict({**counters, **{key: state[key] for key in names if key not in counters}}, False, True)
    except Exception as error:  # a damaged file raises anything from EOFError to UnpicklingError
        raise WeightsError(f"{path} holds no weights of {name} that fit the names of its layers") from error


def _prepared(part: nn.Module, pooling: Pooling) -> nn.Module:
    """Activations keep what they are given, for somebody may look at it; pools are of the wanted kind."""
    for module in part.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    if isinstance(part, nn.MaxPool2d) and pooling == "average":
        return nn.AvgPool2d(part.kernel_size, part.stride, part.padding, part.ceil_mode, count_include_pad=False)
    return part


def _vgg(name: Vgg) -> Parts:
    network = new_of_torchvision(name, init_weights=False)
    places, block, number = {}, 1, 0
    for place, layer in enumerate(network.features):
        if isinstance(layer, nn.MaxPool2d):
            block, number = block + 1, 0
        elif isinstance(layer, nn.ReLU):
            number += 1
            places[f"relu{block}_{number}"] = place
    return network, list(network.features), places


def _alexnet() -> Parts:
    network = new_of_torchvision("alexnet")
    return network, list(network.features), {f"relu{i}": place for i, place in enumerate((1, 4, 7, 9, 11), 1)}


def _squeezenet() -> Parts:
    network = new_of_torchvision("squeezenet1_1")
    places = {"relu1": 1, **{f"fire{i}": place for i, place in enumerate((3, 4, 6, 7, 9, 10, 11, 12), 2)}}
    return network, list(network.features), places


def _googlenet() -> Parts:
    network = new_of_torchvision("googlenet", init_weights=False)
    parts = {name: part for name, part in network.named_children() if name.startswith(("conv", "maxpool", "inception"))}
    return network, list(parts.values()), {name: i for i, name in enumerate(parts) if not name.startswith("maxpool")}


def _effnet_lite0() -> Parts:
    network = new_efficientnet_lite0()
    stem = nn.Sequential(network._conv_stem, network._bn0, network._swish)
    names = ["stem", *(f"block{i + 1}" for i in range(len(network._blocks)))]
    return network, [stem, *network._blocks], {name: place for place, name in enumerate(names)}


MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, of pictures in [0, 1]
HALF = (0.5, 0.5, 0.5)  # these weights came from TensorFlow, where pictures were in [-1, 1]
GATYS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")


@dataclass(frozen=True)
class Published:
    """A backbone that can be had.

    file: torchvision's, whose name ends in the first digits of its sha256; empty where a package brings the weights
    parts: how it is made
    content, style: the layers that stand for them where nobody names others
    mean, std: of its input
    """

    file: str
    parts: Callable[[], Parts]
    content: tuple[str, ...]
    style: tuple[str, ...]
    mean: tuple[float, float, float] = MEAN
    std: tuple[float, float, float] = STD


ALEXNET = ("relu1", "relu2", "relu3", "relu4", "relu5")
GOOGLENET = ("conv1", "conv3", "inception3a", "inception4a", "inception4e")
SQUEEZENET = ("relu1", "fire2", "fire4", "fire6", "fire8")
EFFNET = ("stem", "block1", "block3", "block5", "block9")
BACKBONES = {
    "vgg19": Published("vgg19-dcbb9e9d.pth", lambda: _vgg("vgg19"), ("relu4_2",), GATYS),
    "vgg16": Published("vgg16-397923af.pth", lambda: _vgg("vgg16"), ("relu4_2",), GATYS),
    "alexnet": Published("alexnet-owt-7be5be79.pth", _alexnet, ("relu3",), ALEXNET),
    "googlenet": Published("googlenet-1378be20.pth", _googlenet, ("inception4a",), GOOGLENET, HALF, HALF),
    "squeezenet": Published("squeezenet1_1-b8a52dc0.pth", _squeezenet, ("fire5",), SQUEEZENET),
    "effnet-lite0": Published("", _effnet_lite0, ("block6",), EFFNET),
}


def weights_file(name: BackboneName) -> WeightsFile:
    """Where the weights of a network of torchvision's are."""
    file = BACKBONES[name].file
    digits = file.removesuffix(".pth").rpartition("-")[2]
    return WeightsFile(
        (file,), f"https://download.pytorch.org/models/{file}", digits, f"CYCLEGAN_{name.upper()}_WEIGHTS"
    )


def _published(name: str) -> Published:
    if name not in BACKBONES:
        raise ValueError(f"no backbone {name!r}; choices: {', '.join(BACKBONES)}")
    return BACKBONES[name]
