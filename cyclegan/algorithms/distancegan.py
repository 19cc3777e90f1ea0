"""DistanceGAN (Benaim and Wolf 2017, arXiv 1706.00826): what was far apart before the translation is so after it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveInt
from torch import Tensor, nn

from cyclegan.algorithms import Algorithm, Terms, judge, new_discriminator, new_generator
from cyclegan.config import Config, ConfigError
from cyclegan.losses import Unconstrained, gan_loss
from cyclegan.replay import ReplayPool

ENOUGH = 50


class DistanceGAN(Algorithm):
    """One generator from A to B and one discriminator; equations 6 and 7.

    The paper measures mean and deviation of all distances before training; here they are those of the last ones seen.
    Until ENOUGH are known (or all that are remembered) the distance loss is 0: a deviation of a few is no measure.

    Args:
        adversarial: lsgan, vanilla, nonsaturating or hinge
        distance: weight of the distance loss
        between: halves of a picture, upper and lower (the paper's self-distance), or images of a batch
        pool: past fakes kept for the discriminator
        remembered: distances that mean and deviation are taken of
    """

    def __init__(
        self,
        config: Config,
        adversarial: Unconstrained = "lsgan",
        distance: NonNegativeFloat = 1.0,
        between: Literal["halves", "images"] = "halves",
        pool: NonNegativeInt = 50,
        remembered: PositiveInt = 1000,
    ):
        super().__init__()
        if between == "images" and config.training.batch_size < 2:
            raise ConfigError("algorithm.between: images needs pairs of them; set training.batch_size to 2 or more")
        self.adversarial, self.distance, self.between = adversarial, distance, between
        self.G, self.D = new_generator(config, "A", "B"), new_discriminator(config, config.data.B.channels)
        self.past, self.seen_a, self.seen_b = ReplayPool(pool), Distances(remembered), Distances(remembered)

    def trained(self) -> dict[str, list[nn.Module]]:
        return {"generators": [self.G], "discriminators": [self.D]}

    def generators(self) -> dict[str, nn.Module]:
        return {"AtoB": self.G}

    def losses(self, batch: dict[str, Tensor]) -> Iterator[tuple[str, Terms]]:
        batch["fake_B"] = fake = self.G(batch["A"])
        before, after = self._distances(batch["A"]), self._distances(fake)
        self.seen_a.add(before)
        self.seen_b.add(self._distances(batch["B"]))
        apart = self.seen_a.standardised(before) - self.seen_b.standardised(after)
        weight = self.distance if self.seen_a.enough() and self.seen_b.enough() else 0.0
        adversarial = gan_loss(self.D(fake), self.adversarial)
        yield "generators", {"adversarial_B": adversarial, "distance": weight * apart.abs().mean()}
        yield "discriminators", {"B": judge(self.D, batch["B"], self.past.swap(fake), self.adversarial)}

    def _distances(self, images: Tensor) -> Tensor:
        """(N, C, H, W) -> mean absolute differences, one a picture or one a pair of pictures."""
        if self.between == "halves":
            half = images.shape[2] // 2
            return (images[:, :, :half] - images[:, :, -half:]).abs().mean((1, 2, 3))
        first, second = torch.triu_indices(len(images), len(images), offset=1, device=images.device)
        return (images[first] - images[second]).abs().mean((1, 2, 3))


class Distances(nn.Module):
    """Remembers the last `size` distances; like the pool of past fakes, each process has its own."""

    def __init__(self, size: int):
        super().__init__()
        self.size = size
        self.values = torch.empty(0)

    @torch.no_grad()
    def add(self, distances: Tensor) -> None:
        self.values = torch.cat([self.values.to(distances), distances])[-self.size :]

    def enough(self) -> bool:
        return len(self.values) >= min(ENOUGH, self.size)

    def standardised(self, distances: Tensor) -> Tensor:
        """With the mean and deviation of those remembered."""
        return (distances - self.values.mean()) / self.values.std(correction=0).clamp(min=0.01)

    def get_extra_state(self) -> list[Tensor]:
        return list(self.values)

    def set_extra_state(self, state: list[Tensor]) -> None:
        self.values = torch.stack(state[-self.size :]) if state else torch.empty(0)
