"""AdaIN (Huang & Belongie 2017, arXiv 1703.06868): one decoder for any style, from statistics of features."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from pydantic import NonNegativeFloat
from torch import Tensor, nn

from cyclegan.algorithms import Algorithm, Terms, new_generator
from cyclegan.config import Config, ConfigError
from cyclegan.losses.style import Kernel, Style, content_loss, describe, style_loss
from cyclegan.networks.adain import reflecting
from cyclegan.networks.backbones import load_backbone


class AdaIN(Algorithm):
    """Contents are domain A, styles domain B; a frozen VGG encodes, the decoder learns by equations 11 to 13.

    Args:
        content: weight of the distance of the picture's features to those that were decoded
        beta: weight of the style, over all layers up to the encoder's last
        kernel: how styles are compared: statistics (the paper's), gram, linear, polynomial or gaussian
        relative: divide each loss by what an empty picture would score; false: sums and means as they are
        weights: torchvision's file of the encoder, where it is not found or downloaded; random: none, for tests only
    """

    def __init__(
        self,
        config: Config,
        content: NonNegativeFloat = 1.0,
        beta: NonNegativeFloat = 10.0,
        kernel: Kernel = "statistics",
        relative: bool = True,
        weights: str | None = None,
    ):
        super().__init__()
        if config.generator["name"] != "adain":
            raise ConfigError(f"generator.name: adain needs its own, adain; found {config.generator['name']}")
        self.content, self.beta, self.kernel, self.relative = content, beta, kernel, relative
        self.G = new_generator(config, "A", "B")
        self.layer = self.G.layer
        blocks = range(1, int(self.layer[4]) + 1)
        self.style_layers = {f"relu{block}_1": 1 / len(blocks) for block in blocks}
        encoder = self.G.architecture.get("encoder", "vgg19")
        self.backbone = reflecting(load_backbone(encoder, list(self.style_layers), weights=weights))
        for ours, theirs in zip(_convolutions(self.G.encoder), _convolutions(self.backbone), strict=True):
            ours.weight.copy_(theirs.weight)
            ours.bias.copy_(theirs.bias)

    def trained(self) -> dict[str, list[nn.Module]]:
        return {"generators": [self.G]}

    def generators(self) -> dict[str, nn.Module]:
        return {"AtoB": self.G}

    def losses(self, batch: dict[str, Tensor]) -> Iterator[tuple[str, Terms]]:
        fake, wanted = self.G(batch["A"], batch["B"])
        batch["fake_B"] = fake
        found = self.backbone(fake)
        with torch.no_grad():
            style = self._described(self.backbone(batch["B"]))
        yield (
            "generators",
            {
                "content_B": self.content * content_loss(found[self.layer], wanted.float(), self.relative).mean(),
                "style_B": self.beta
                * style_loss(self._described(found), style, self.style_layers, self.relative).mean(),
            },
        )

    def _described(self, features: dict[str, Tensor]) -> dict[str, Style]:
        return {name: describe(features[name], self.kernel) for name in self.style_layers}


def _convolutions(network: nn.Module) -> list[nn.Module]:
    return [module for module in network.modules() if isinstance(module, nn.Conv2d)]
