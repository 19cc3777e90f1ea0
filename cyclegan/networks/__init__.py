"""Networks by name. To add one: write its file, add its class here."""

from __future__ import annotations

from typing import Any

from torch import nn

from cyclegan.networks.adain import AdainGenerator
from cyclegan.networks.linear import LinearGenerator
from cyclegan.networks.multiscale import MultiscaleDiscriminator
from cyclegan.networks.patchgan import PatchDiscriminator, PixelDiscriminator
from cyclegan.networks.resnet import ResnetGenerator
from cyclegan.networks.ugatit import UgatitDiscriminator, UgatitGenerator
from cyclegan.networks.unet import UnetGenerator
from cyclegan.networks.variational import VariationalGenerator

GENERATORS: dict[str, type[nn.Module]] = {
    "resnet": ResnetGenerator,
    "unet": UnetGenerator,
    "ugatit": UgatitGenerator,
    "adain": AdainGenerator,
    "linear": LinearGenerator,
    "variational": VariationalGenerator,
}
DISCRIMINATORS: dict[str, type[nn.Module]] = {  # each gives a map of scores, or a list of them
    "patch": PatchDiscriminator,
    "pixel": PixelDiscriminator,
    "multiscale": MultiscaleDiscriminator,
    "ugatit": UgatitDiscriminator,
}


def build_generator(architecture: dict[str, Any]) -> nn.Module:
    """A fresh generator from {"name": …, its options}; it keeps them as `architecture`, so that files can tell."""
    options = dict(architecture)
    generator = GENERATORS[options.pop("name")](**options)
    generator.architecture = architecture
    return generator
