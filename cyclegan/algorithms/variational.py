"""Variational style transfer (TU Munich 2019): AdaIN with a space of styles to draw from and to walk in."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from pydantic import NonNegativeFloat
from torch import Tensor

from cyclegan.algorithms import Terms
from cyclegan.algorithms._styled import Styled
from cyclegan.config import Config, ConfigError
from cyclegan.losses.style import Kernel
from cyclegan.losses.variational import disentanglement, divergence


class Variational(Styled):
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
        if disentanglement and config.training.batch_size < 2:
            raise ConfigError("algorithm.disentanglement: compares two contents of a batch: batch_size 2 or more, or 0")
        super().__init__(config, "variational", content, beta, kernel, relative, weights)
        self.kl, self.disentanglement = kl, disentanglement

    def losses(self, batch: dict[str, Tensor]) -> Iterator[tuple[str, Terms]]:
        real = batch["A"]
        contents = torch.cat([real, real.roll(1, 0)]) if self.disentanglement else real
        fakes, mean, log_variance, own = self.G(contents, batch["B"], learning=True)
        batch["fake_B"] = fake = fakes[: len(real)]
        with torch.no_grad():
            wanted = self.backbone(real)[self.layer]
        terms = self.painted(fake, wanted, batch["B"]) | {"kl": self.kl * divergence(mean, log_variance).mean()}
        if self.disentanglement:
            terms["disentanglement"] = self.disentanglement * disentanglement(*own.chunk(2), mean).mean()
        yield "generators", terms
