"""pix2pix (Isola et al. 2017, arXiv 1611.07004): be near the truth, and look real beside the input."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from pydantic import NonNegativeFloat
from torch import Tensor, nn

from cyclegan.algorithms import Algorithm, Terms, judge, new_discriminator, new_generator
from cyclegan.config import Config, ConfigError
from cyclegan.losses import gan_loss, l1_loss


class Pix2Pix(Algorithm):
    """A generator and a discriminator a direction; equation 4 of the paper, its D before its G (section 3.3).

    The discriminator sees input and output as one stack of channels (equation 1). The paper's noise is the dropout in
    the generator while it trains; what is shown and exported is without it, and so always the same.

    Args:
        direction: AtoB, BtoA, or both at once, each with networks of its own
        adversarial: vanilla (the paper's), lsgan, nonsaturating or hinge
        l1: weight of |G(a) - b| (equation 3)
    """

    def __init__(
        self,
        config: Config,
        direction: Literal["AtoB", "BtoA", "both"] = "AtoB",
        adversarial: Literal["vanilla", "lsgan", "nonsaturating", "hinge"] = "vanilla",
        l1: NonNegativeFloat = 100.0,
    ):
        super().__init__()
        if config.data.pairing != "paired":
            raise ConfigError(f"data.pairing: pix2pix learns from pairs, so `paired`, found {config.data.pairing!r}")
        self.adversarial, self.l1 = adversarial, l1
        self.directions = ("AtoB", "BtoA") if direction == "both" else (direction,)
        stack = config.data.A.channels + config.data.B.channels
        if "AtoB" in self.directions:
            self.G_AB, self.D_B = new_generator(config, "A", "B"), new_discriminator(config, stack)
        if "BtoA" in self.directions:
            self.G_BA, self.D_A = new_generator(config, "B", "A"), new_discriminator(config, stack)

    def trained(self) -> dict[str, list[nn.Module]]:
        return {
            "generators": list(self.generators().values()),
            "discriminators": [self._critic(direction) for direction in self.directions],
        }

    def generators(self) -> dict[str, nn.Module]:
        return {direction: self.G_AB if direction == "AtoB" else self.G_BA for direction in self.directions}

    def losses(self, batch: dict[str, Tensor]) -> Iterator[tuple[str, Terms]]:
        fakes, terms = {}, {}
        for direction, generator in self.generators().items():
            source, target = direction.split("to")
            critic, real = self._critic(direction), batch[source]
            fakes[direction] = batch[f"fake_{target}"] = fake = generator(real)
            truth, guess = (torch.cat([real, image], 1) for image in (batch[target], fake.detach()))
            terms[target] = judge(critic, truth, guess, self.adversarial)
        yield "discriminators", terms

        terms = {}
        for direction, fake in fakes.items():
            source, target = direction.split("to")
            score = self._critic(direction)(torch.cat([batch[source], fake], 1))
            terms[f"adversarial_{target}"] = gan_loss(score, self.adversarial)
            terms[f"l1_{target}"] = self.l1 * l1_loss(fake, batch[target])
        yield "generators", terms

    def _critic(self, direction: str) -> nn.Module:
        return self.D_B if direction == "AtoB" else self.D_A
