"""CUT (Park et al. 2020, arXiv 2007.15651): what is where in the input must be known again in the output there.

FastCUT and SinCUT are other settings of it: options/fastcut.yaml and options/sincut.yaml.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import torch
from pydantic import NonNegativeFloat, PositiveFloat, PositiveInt
from torch import Tensor, nn

from cyclegan.algorithms import Algorithm, Terms, check_alike, judge, new_discriminator, new_generator
from cyclegan.config import Config, ConfigError
from cyclegan.losses import Unconstrained, gan_loss, l1_loss, patch_nce, r1_penalty
from cyclegan.networks.heads import ProjectionHeads, compared_layers, draw_places
from cyclegan.networks.initialize import initialize
from cyclegan.networks.resnet import PICTURE


class CUT(Algorithm):
    """One generator and one discriminator; equation 1 against the discriminator, 2 and 3 between input and output.

    As in the authors' code both contrastive losses count half where there are two, and the discriminator is updated
    first. Their heads have an Adam of their own with the generator's settings, which is the same as sharing its.

    Args:
        direction: AtoB or BtoA
        adversarial: lsgan (the paper's), vanilla, nonsaturating (SinCUT's) or hinge
        nce: weight of the contrastive loss between a picture and its translation (lambda_X)
        identity: weight of the contrastive loss between a picture of the target domain and its own (lambda_Y)
        layers: of the generator, by their numbers in `model`; null: the padded pixels, the down-sampling convolutions,
            the first and the fifth residual block, which in the paper's antialiased generator are 0, 4, 8, 12, 16
        patches: places of each layer that are compared
        temperature: of the contrastive softmax
        width: of the vectors that are compared
        negatives: the other places of the same image, or of all in the batch (SinCUT's)
        flip: flip-equivariance, FastCUT's: half of the time mirror the input, and the features back
        reconstruction: weight of |G(b) - b|, SinCUT's
        r1: weight of the R1 penalty on real pictures, SinCUT's
    """

    def __init__(
        self,
        config: Config,
        direction: Literal["AtoB", "BtoA"] = "AtoB",
        adversarial: Unconstrained = "lsgan",
        nce: NonNegativeFloat = 1.0,
        identity: NonNegativeFloat = 1.0,
        layers: list[int] | None = None,
        patches: PositiveInt = 256,
        temperature: PositiveFloat = 0.07,
        width: PositiveInt = 256,
        negatives: Literal["image", "batch"] = "image",
        flip: bool = False,
        reconstruction: NonNegativeFloat = 0.0,
        r1: NonNegativeFloat = 0.0,
    ):
        super().__init__()
        self.source, self.target = direction.split("to")
        if config.data.A.channels != config.data.B.channels:
            raise ConfigError("algorithm.name: cut compares input and output: A and B need as many data.*.channels")
        self.direction, self.adversarial, self.nce, self.identity = direction, adversarial, nce, identity
        self.patches, self.temperature = patches, temperature
        self.across, self.flip, self.reconstruction, self.r1 = negatives == "batch", flip, reconstruction, r1
        self.G = new_generator(config, self.source, self.target)
        self.D = new_discriminator(config, config.data.A.channels)
        self.layers = compared_layers(self.G, layers)
        channels = [self.G.channels_after(layer) for layer in self.layers]
        self.heads = initialize(ProjectionHeads(channels, width), config.init.name, config.init.gain)

    def trained(self) -> dict[str, list[nn.Module]]:
        return {"generators": [self.G, self.heads], "discriminators": [self.D]}

    def generators(self) -> dict[str, nn.Module]:
        return {self.direction: self.G}

    def losses(self, batch: dict[str, Tensor]) -> Iterator[tuple[str, Terms]]:
        real, goal = batch[self.source], batch[self.target]
        count, both = len(real), bool(self.identity or self.reconstruction)
        if both:
            check_alike("cut's algorithm.identity or reconstruction", real, goal)
        inputs = torch.cat([real, goal]) if both else real
        flipped = self.flip and bool(torch.rand(()) < 0.5)
        *keys, outputs = self.G(inputs.flip(3) if flipped else inputs, (*self.layers, PICTURE))
        fake = outputs[:count]
        batch[f"fake_{self.target}"] = fake.flip(3) if flipped else fake
        yield "discriminators", self._critic_terms(goal, fake.detach())

        if flipped:
            with torch.no_grad():
                keys = self.G(inputs, self.layers)
        queries = self.G(outputs, self.layers)
        queries = [query.flip(3) for query in queries] if flipped else queries
        compared = list(self._compared(keys, queries))
        share = 0.5 if self.identity else 1.0
        terms = {
            f"adversarial_{self.target}": gan_loss(self.D(fake), self.adversarial),
            "nce": share * self.nce * self._contrast([(query[:count], key[:count]) for query, key in compared]),
        }
        if self.identity:
            second = self._contrast([(query[count:], key[count:]) for query, key in compared])
            terms["identity"] = share * self.identity * second
        if self.reconstruction:
            back = outputs[count:].flip(3) if flipped else outputs[count:]
            terms["reconstruction"] = self.reconstruction * l1_loss(back, goal)
        yield "generators", terms

    def _critic_terms(self, goal: Tensor, fake: Tensor) -> Terms:
        terms = {self.target: judge(self.D, goal, fake, self.adversarial)}
        if self.r1:
            terms["r1"] = self.r1 * r1_penalty(self.D, goal)
        return terms

    def _compared(self, keys: list[Tensor], queries: list[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Layer by layer, what output and input show at the same places: (N, places, width) each."""
        places = draw_places(keys, self.patches)
        with torch.no_grad():
            keys = self.heads(keys, places)
        return zip(self.heads(queries, places), keys, strict=True)

    def _contrast(self, compared: list[tuple[Tensor, Tensor]]) -> Tensor:
        """The mean over layers."""
        losses = [patch_nce(query, key, self.temperature, self.across) for query, key in compared]
        return torch.stack(losses).mean()
