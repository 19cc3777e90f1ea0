"""AdaIN (Huang & Belongie 2017, arXiv 1703.06868): one decoder for any style, from statistics of features."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from pydantic import NonNegativeFloat
from torch import Tensor, nn

from cyclegan.algorithms import Algorithm, Terms, own_generator
from cyclegan.config import Config
from cyclegan.losses.style import Kernel, content_loss, describe_layers, style_loss


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
        self.content, self.beta, self.kernel, self.relative = content, beta, kernel, relative
        self.G = own_generator(config, "adain")
        self.layer, self.style_layers = self.G.layer, self.G.style_layers()
        self.backbone = self.G.load_encoder(list(self.style_layers), weights)

    def trained(self) -> dict[str, list[nn.Module]]:
        return {"generators": [self.G]}

    def generators(self) -> dict[str, nn.Module]:
        return {"AtoB": self.G}

    def losses(self, batch: dict[str, Tensor]) -> Iterator[tuple[str, Terms]]:
        fake, wanted = self.G(batch["A"], batch["B"], learning=True)
        batch["fake_B"] = fake
        found = self.backbone(fake)
        with torch.no_grad():
            style = describe_layers(self.backbone(batch["B"]), self.style_layers, self.kernel)
        painted = describe_layers(found, self.style_layers, self.kernel)
        yield (
            "generators",
            {
                "content_B": self.content * content_loss(found[self.layer], wanted.float(), self.relative).mean(),
                "style_B": self.beta * style_loss(painted, style, self.style_layers, self.relative).mean(),
            },
        )
