"""U-GAT-IT (Kim et al. 2020, arXiv 1907.10830): CycleGAN that looks where the domains differ, and adapts its norms."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from pydantic import NonNegativeFloat
from torch import Tensor, nn

from cyclegan.algorithms import Algorithm, Parts, Terms, judge, new_discriminator, new_generator
from cyclegan.config import Config, ConfigError
from cyclegan.losses import gan_loss, l1_loss, within
from cyclegan.networks.ugatit import LayerInstanceNorm


class UGATIT(Algorithm):
    """Two generators with attention and two discriminators; equations 3 to 7, least squares, no pool of past fakes.

    Args:
        gan: weight of the adversarial losses, those of the discriminators' attention among them
        cycle: weight of |G_BA(G_AB(a)) - a| and its mirror image
        identity: weight of |G_AB(b) - b| and its mirror image
        attention: weight of the generators' telling the domains apart by their attention
    """

    takes_masks = True

    def __init__(
        self,
        config: Config,
        gan: NonNegativeFloat = 1.0,
        cycle: NonNegativeFloat = 10.0,
        identity: NonNegativeFloat = 10.0,
        attention: NonNegativeFloat = 1000.0,
    ):
        super().__init__()
        channels_a, channels_b = config.data.A.channels, config.data.B.channels
        if config.generator["name"] != "ugatit":
            raise ConfigError(f"generator.name: {config.generator['name']} has no attention to train; use ugatit")
        if channels_a != channels_b:
            raise ConfigError("algorithm: ugatit's generators see pictures of both domains: as many channels, please")
        self.gan, self.cycle, self.identity, self.attention = gan, cycle, identity, attention
        self.G_AB, self.G_BA = new_generator(config, "A", "B"), new_generator(config, "B", "A")
        self.D_A, self.D_B = new_discriminator(config, channels_a), new_discriminator(config, channels_b)

    def trained(self) -> dict[str, list[nn.Module]]:
        return {"discriminators": [self.D_A, self.D_B], "generators": [self.G_AB, self.G_BA]}

    def generators(self) -> dict[str, nn.Module]:
        return {"AtoB": self.G_AB, "BtoA": self.G_BA}

    def losses(self, batch: dict[str, Tensor]) -> Iterator[tuple[str, Terms | Parts]]:
        ways = [("A", "B", self.G_AB, self.G_BA, self.D_B), ("B", "A", self.G_BA, self.G_AB, self.D_A)]
        fakes, of_source = {}, {}
        for source, target, there, _, _ in ways:
            fake, of_source[source] = there(batch[source], attention=True)
            fakes[target] = within(batch.get(f"{source}_mask"), fake, batch[source])
        yield (
            "discriminators",
            {  # the paper adds the two halves up, `judge` takes their mean
                target: 2 * self.gan * judge(critic, batch[target], fakes[target].detach())
                for _, target, _, _, critic in ways
            },
        )
        yield "generators", [partial(self._round, way, batch, fakes[way[1]], of_source[way[0]]) for way in ways]
        self._clamp_mixtures()

    def _round(self, way: tuple, batch: dict[str, Tensor], fake: Tensor, of_source: Tensor) -> Terms:
        """What the generators minimise for one direction; puts the translation into the batch."""
        source, target, there, back, critic = way
        batch[f"fake_{target}"] = fake
        same, of_target = there(batch[target], attention=True)
        cycle = l1_loss(back(fake), batch[source], batch.get(f"{source}_mask"))
        unchanged = l1_loss(same, batch[target], batch.get(f"{target}_mask"))
        told_apart = F.softplus(-of_source).mean() + F.softplus(of_target).mean()  # cross entropy
        return {
            f"adversarial_{target}": self.gan * gan_loss(critic(fake)),
            f"cycle_{source}": self.cycle * cycle,
            f"identity_{target}": self.identity * unchanged,
            f"attention_{target}": self.attention * told_apart,
        }

    @torch.no_grad()
    def _clamp_mixtures(self) -> None:
        """Keep every rho in [0, 1]; its gradient stays, so it may leave the border again."""
        for module in [*self.G_AB.modules(), *self.G_BA.modules()]:
            if isinstance(module, LayerInstanceNorm):
                module.rho.clamp_(0, 1)
