"""Variational style transfer (TU Munich 2019): AdaIN with a space of styles to draw from and to walk in."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from pydantic import NonNegativeFloat
from torch import Tensor, nn

from cyclegan.algorithms import Algorithm, Terms, own_generator
from cyclegan.config import Config, ConfigError
from cyclegan.losses.style import Kernel, content_loss, describe_layers, style_loss
from cyclegan.losses.variational import disentanglement, divergence


class Variational(Algorithm):
    """Contents are domain A, styles domain B; a frozen VGG encodes contents, style encoder and decoder learn.

    Each style also paints another content of the batch, which only the disentanglement loss looks at.

    Args:
        content: weight of the distance of the picture's features to the content's, at the generator's layer
        beta: weight of the style, over all layers up to that one
        kl: weight of the divergence of a style's distribution from N(0, I)
        disentanglement: weight of max(0, |y1 - y2|^2 - |y1 - s|^2); 0 also saves the other content
        kernel: how styles are compared: gram (the paper's), statistics, linear, polynomial or gaussian
        relative: divide losses of features by what an empty picture would score; false: sums and means as they are
        weights: torchvision's file of the encoder, where it is not found or downloaded; random: none, for tests only
    """

    def __init__(
        self,
        config: Config,
        content: NonNegativeFloat = 1.0,
        beta: NonNegativeFloat = 10.0,
        kl: NonNegativeFloat = 0.01,
        disentanglement: NonNegativeFloat = 0.1,
        kernel: Kernel = "gram",
        relative: bool = True,
        weights: str | None = None,
    ):
        super().__init__()
        if disentanglement and config.training.batch_size < 2:
            raise ConfigError("algorithm.disentanglement: compares two contents of a batch: batch_size 2 or more, or 0")
        self.content, self.beta, self.kl, self.disentanglement = content, beta, kl, disentanglement
        self.kernel, self.relative = kernel, relative
        self.G = own_generator(config, "variational")
        self.layer, self.style_layers = self.G.layer, self.G.style_layers()
        self.backbone = self.G.load_encoder(list(self.style_layers), weights)

    def trained(self) -> dict[str, list[nn.Module]]:
        return {"generators": [self.G]}

    def generators(self) -> dict[str, nn.Module]:
        return {"AtoB": self.G}

    def losses(self, batch: dict[str, Tensor]) -> Iterator[tuple[str, Terms]]:
        real = batch["A"]
        contents = torch.cat([real, real.roll(1, 0)]) if self.disentanglement else real
        fakes, mean, log_variance, own = self.G(contents, batch["B"], learning=True)
        batch["fake_B"] = fake = fakes[: len(real)]
        found = self.backbone(fake)
        with torch.no_grad():
            wanted = self.backbone(real)[self.layer]
            style = describe_layers(self.backbone(batch["B"]), self.style_layers, self.kernel)
        painted = describe_layers(found, self.style_layers, self.kernel)
        terms = {
            "content_B": self.content * content_loss(found[self.layer], wanted, self.relative).mean(),
            "style_B": self.beta * style_loss(painted, style, self.style_layers, self.relative).mean(),
            "kl": self.kl * divergence(mean, log_variance).mean(),
        }
        if self.disentanglement:
            terms["disentanglement"] = self.disentanglement * disentanglement(*own.chunk(2), mean).mean()
        yield "generators", terms
