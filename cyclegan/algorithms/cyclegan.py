"""CycleGAN (Zhu et al. 2017, arXiv 1703.10593): translate there and back, and arrive where you started."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Literal, NamedTuple

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import Tensor, nn

from cyclegan.algorithms import Algorithm, Parts, Terms, check_alike, judge, new_discriminator, new_generator, together
from cyclegan.config import Config, ConfigError
from cyclegan.losses import Adversarial, gan_loss, gradient_penalty, l1_loss, r1_penalty, within
from cyclegan.replay import ReplayPool


class Way(NamedTuple):
    """All that the losses of one direction need: from `source` to `target` and back."""

    source: str
    target: str
    real: Tensor  # (N, C, H, W), to be translated
    goal: Tensor  # (N, C, H, W), real pictures of the target domain
    there: nn.Module
    back: nn.Module
    critic: nn.Module  # judges pictures of the target domain
    past: ReplayPool
    mask: Tensor | None  # (N, 1, H, W), 1 where `real` is to be translated
    goal_mask: Tensor | None


class CycleGAN(Algorithm):
    """Two generators and two discriminators; equation 3 of the paper, identity loss as in its section 5.2.

    With masks, translations are pasted into their pictures, and cycle and identity loss look inside the masks only.

    Args:
        adversarial: lsgan (the paper's), vanilla, nonsaturating, hinge, wgan or wgan-gp
        cycle: weight of |G_BA(G_AB(a)) - a| and its mirror image; {A: 10, B: 5} gives each its own
        identity: weight of |G_AB(b) - b| and its mirror image; the reference's 0.5 x 10
        sides: both, or only A or B: the one domain whose pictures are translated against a discriminator; the other
            generator then learns only to bring them back
        pool: past fakes kept for the discriminators
        discriminator_updates: updates of the discriminators for each one of the generators
        clamp: keep discriminator weights within +-clamp (Arjovsky et al. 2017); 0 leaves them free
        gradient_penalty: weight of wgan-gp's penalty. It stands beside half the paper's loss, as all discriminators'
            losses are means of two halves: 5 here is the paper's 10
        r1: weight of the penalty on the discriminators' gradients at real pictures (Mescheder et al. 2018), beside
            half the paper's loss, too; 0 is none
        r1_every: discriminator losses between two penalties, each then so many times as heavy; with
            training.accumulate those are of micro-batches, several an update
    """

    takes_masks = True

    def __init__(
        self,
        config: Config,
        adversarial: Adversarial = "lsgan",
        cycle: NonNegativeFloat | dict[Literal["A", "B"], NonNegativeFloat] = 10.0,
        identity: NonNegativeFloat = 5.0,
        sides: Literal["both", "A", "B"] = "both",
        pool: NonNegativeInt = 50,
        discriminator_updates: PositiveInt = 1,
        clamp: NonNegativeFloat = 0.0,
        gradient_penalty: NonNegativeFloat = 10.0,
        r1: NonNegativeFloat = 0.0,
        r1_every: PositiveInt = 1,
    ):
        super().__init__()
        channels_a, channels_b = config.data.A.channels, config.data.B.channels
        if identity and channels_a != channels_b:
            raise ConfigError(
                f"algorithm.identity: {channels_a} channels in A and {channels_b} in B cannot be compared; set it to 0"
            )
        if isinstance(cycle, dict) and len(cycle) < 2:
            raise ConfigError(f"algorithm.cycle: a weight for A and one for B expected, found {cycle}")
        self.cycle = cycle if isinstance(cycle, dict) else {"A": cycle, "B": cycle}
        self.adversarial, self.identity, self.r1, self.r1_every = adversarial, identity, r1, r1_every
        self.discriminator_updates, self.clamp, self.gradient_penalty = discriminator_updates, clamp, gradient_penalty
        self.register_buffer("updates", torch.zeros((), dtype=torch.long))  # of the discriminators
        self.sides = ("A", "B") if sides == "both" else (sides,)
        self.G_AB, self.G_BA = new_generator(config, "A", "B"), new_generator(config, "B", "A")
        if "A" in self.sides:
            self.D_B, self.past_b = new_discriminator(config, channels_b), ReplayPool(pool)
        if "B" in self.sides:
            self.D_A, self.past_a = new_discriminator(config, channels_a), ReplayPool(pool)

    def trained(self) -> dict[str, list[nn.Module]]:
        critics = [self.D_B if side == "A" else self.D_A for side in self.sides]
        return {"generators": [self.G_AB, self.G_BA], "discriminators": critics}

    def generators(self) -> dict[str, nn.Module]:
        return {"AtoB": self.G_AB, "BtoA": self.G_BA}

    def losses(self, batch: dict[str, Tensor]) -> Iterator[tuple[str, Terms | Parts]]:
        ways = [self._way(side, batch) for side in self.sides]
        yield "generators", [partial(self._round, way, batch) for way in ways]

        shown = {way.target: way.past.swap(batch[f"fake_{way.target}"]) for way in ways}
        for _ in range(self.discriminator_updates):
            terms = {}
            for way in ways:
                fake = shown[way.target]
                terms[way.target] = judge(way.critic, way.goal, fake, self.adversarial)
                if self.adversarial == "wgan-gp":
                    check_alike("algorithm.adversarial=wgan-gp", way.goal, fake)
                    penalty = gradient_penalty(way.critic, way.goal, fake)
                    terms[f"penalty_{way.target}"] = self.gradient_penalty * penalty
                if self.r1 and self._penalty_is_due():
                    terms[f"r1_{way.target}"] = self.r1 * self.r1_every * r1_penalty(way.critic, way.goal)
            yield "discriminators", terms
            self.updates += 1
            if self.clamp:
                _clamp([way.critic for way in ways], self.clamp)

    def _round(self, way: Way, batch: dict[str, Tensor]) -> Terms:
        """There, past the critic, and back; puts the translation into the batch."""
        if self.identity:
            translated, same = together(way.there, way.real, way.goal)
        else:
            translated = way.there(way.real)
        fake = batch[f"fake_{way.target}"] = within(way.mask, translated, way.real)
        terms = {
            f"adversarial_{way.target}": gan_loss(way.critic(fake), self.adversarial),
            f"cycle_{way.source}": self.cycle[way.source] * l1_loss(way.back(fake), way.real, way.mask),
        }
        if self.identity:
            terms[f"identity_{way.target}"] = self.identity * l1_loss(same, way.goal, way.goal_mask)
        return terms

    def _penalty_is_due(self) -> bool:
        """Where every update has one, without a look at the counter: it lies on the GPU, which would be waited for."""
        return self.r1_every == 1 or bool(self.updates % self.r1_every == 0)

    def _way(self, side: str, batch: dict[str, Tensor]) -> Way:
        (a, mask_a), (b, mask_b) = ((batch[domain], batch.get(f"{domain}_mask")) for domain in ("A", "B"))
        if side == "A":
            return Way("A", "B", a, b, self.G_AB, self.G_BA, self.D_B, self.past_b, mask_a, mask_b)
        return Way("B", "A", b, a, self.G_BA, self.G_AB, self.D_A, self.past_a, mask_b, mask_a)


@torch.no_grad()
def _clamp(critics: list[nn.Module], bound: float) -> None:
    for critic in critics:
        for parameter in critic.parameters():
            parameter.clamp_(-bound, bound)
