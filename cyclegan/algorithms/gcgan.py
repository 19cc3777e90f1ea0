"""GcGAN (Fu et al. 2019, arXiv 1809.05852): turn a picture before or after translating it, and it must be the same."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from pydantic import NonNegativeFloat, NonNegativeInt
from torch import Tensor, nn

from cyclegan.algorithms import Algorithm, Terms, judge, new_discriminator, new_generator
from cyclegan.config import Config, ConfigError
from cyclegan.losses import Unconstrained, gan_loss, l1_loss
from cyclegan.replay import ReplayPool


class GcGAN(Algorithm):
    """One generator from A to B, a discriminator for its pictures and one for turned ones; equations 3 to 5.

    Args:
        adversarial: lsgan, vanilla, nonsaturating or hinge
        geometry: weight of the geometry-consistency loss, equation 4
        turn: rotate by a quarter clockwise, or flip upside down
        identity: weight of |G(b) - b|, for b as it is and turned
        pool: past fakes kept for each discriminator
    """

    def __init__(
        self,
        config: Config,
        adversarial: Unconstrained = "lsgan",
        geometry: NonNegativeFloat = 20.0,
        turn: Literal["rotate", "flip"] = "rotate",
        identity: NonNegativeFloat = 5.0,
        pool: NonNegativeInt = 50,
    ):
        super().__init__()
        if identity and config.data.A.channels != config.data.B.channels:
            raise ConfigError("algorithm.identity: A and B differ in channels and cannot be compared; set it to 0")
        self.adversarial, self.geometry, self.turn, self.identity = adversarial, geometry, turn, identity
        self.G = new_generator(config, "A", "B")
        self.D, self.past = new_discriminator(config, config.data.B.channels), ReplayPool(pool)
        self.D_turned, self.past_turned = new_discriminator(config, config.data.B.channels), ReplayPool(pool)

    def trained(self) -> dict[str, list[nn.Module]]:
        return {"generators": [self.G], "discriminators": [self.D, self.D_turned]}

    def generators(self) -> dict[str, nn.Module]:
        return {"AtoB": self.G}

    def losses(self, batch: dict[str, Tensor]) -> Iterator[tuple[str, Terms]]:
        real, turned = batch["B"], self._turned(batch["B"])
        fake, fake_turned = self.G(batch["A"]), self.G(self._turned(batch["A"]))
        batch["fake_B"] = fake
        # As in the authors' code: each is pulled towards the other, which holds still.
        apart = l1_loss(fake, self._back(fake_turned).detach()) + l1_loss(fake_turned, self._turned(fake).detach())
        terms = {
            "adversarial_B": gan_loss(self.D(fake), self.adversarial),
            "adversarial_turned": gan_loss(self.D_turned(fake_turned), self.adversarial),
            "geometry": self.geometry * apart,
        }
        if self.identity:
            terms["identity_B"] = self.identity * (l1_loss(self.G(real), real) + l1_loss(self.G(turned), turned))
        yield "generators", terms
        yield (
            "discriminators",
            {
                "B": judge(self.D, real, self.past.swap(fake), self.adversarial),
                "turned": judge(self.D_turned, turned, self.past_turned.swap(fake_turned), self.adversarial),
            },
        )

    def _turned(self, images: Tensor) -> Tensor:
        return torch.rot90(images, -1, (2, 3)) if self.turn == "rotate" else images.flip(2)

    def _back(self, images: Tensor) -> Tensor:
        return torch.rot90(images, 1, (2, 3)) if self.turn == "rotate" else images.flip(2)
