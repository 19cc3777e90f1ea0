"""DCLGAN (Han et al. 2021, arXiv 2104.07689): CUT in both directions, each domain with an encoder of its own."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn

from cyclegan.algorithms import Algorithm, Terms, judge, new_discriminator, new_generator
from cyclegan.config import Config, ConfigError
from cyclegan.losses import gan_loss, l1_loss, patch_nce
from cyclegan.networks.heads import ProjectionHeads, compared_layers, draw_places
from cyclegan.networks.initialize import initialize
from cyclegan.networks.resnet import PICTURE
from cyclegan.replay import ReplayPool


class DCLGAN(Algorithm):
    """Two of each network; the first half of G_AB encodes pictures of A, and the first half of G_BA those of B.

    A picture of A is encoded by G_AB, its translation by G_BA, and what is where must be known again across the two
    (section 3.2 of the paper). As in the authors' code every sum over the two directions counts half and the
    discriminators are updated first; unlike there, the heads learn at the generators' rate.

    Args:
        nce: weight of the contrastive loss
        identity: weight of |G_AB(b) - b| and its mirror image
        layers: of the generators, by their numbers in `model`; null: the down-sampling convolutions, the first and the
            fifth residual block, which in the paper's antialiased generator are 4, 8, 12, 16
        patches: places of each layer that are compared
        temperature: of the contrastive softmax
        width: of the vectors that are compared
        pool: past fakes kept for the discriminators
    """

    def __init__(
        self,
        config: Config,
        nce: NonNegativeFloat = 2.0,
        identity: NonNegativeFloat = 1.0,
        layers: list[int] | None = None,
        patches: PositiveInt = 256,
        temperature: PositiveFloat = 0.07,
        width: PositiveInt = 256,
        pool: NonNegativeInt = 0,
    ):
        super().__init__()
        channels = config.data.A.channels
        if identity and channels != config.data.B.channels:
            raise ConfigError("algorithm.identity: A and B differ in data.*.channels, so set it to 0")
        self.nce, self.identity, self.patches, self.temperature = nce, identity, patches, temperature
        self.G_AB, self.G_BA = new_generator(config, "A", "B"), new_generator(config, "B", "A")
        self.D_A, self.D_B = new_discriminator(config, channels), new_discriminator(config, config.data.B.channels)
        self.layers = compared_layers(self.G_AB, layers)
        if layers is None:
            self.layers = self.layers[1:]
        self.heads_A, self.heads_B = (self._new_heads(config, encoder, width) for encoder in (self.G_AB, self.G_BA))
        self.past_a, self.past_b = ReplayPool(pool), ReplayPool(pool)

    def trained(self) -> dict[str, list[nn.Module]]:
        generators = [self.G_AB, self.G_BA, self.heads_A, self.heads_B]
        return {"generators": generators, "discriminators": [self.D_A, self.D_B]}

    def generators(self) -> dict[str, nn.Module]:
        return {"AtoB": self.G_AB, "BtoA": self.G_BA}

    def losses(self, batch: dict[str, Tensor]) -> Iterator[tuple[str, Terms]]:
        real_a, real_b = batch["A"], batch["B"]
        *keys_a, fake_b = self.G_AB(real_a, (*self.layers, PICTURE))
        *keys_b, fake_a = self.G_BA(real_b, (*self.layers, PICTURE))
        batch["fake_A"], batch["fake_B"] = fake_a, fake_b
        yield (
            "discriminators",
            {
                "A": judge(self.D_A, real_a, self.past_a.swap(fake_a)),
                "B": judge(self.D_B, real_b, self.past_b.swap(fake_b)),
            },
        )
        share = 0.5 * self.nce
        terms = {
            "adversarial_A": 0.5 * gan_loss(self.D_A(fake_a)),
            "adversarial_B": 0.5 * gan_loss(self.D_B(fake_b)),
            "nce_A": share * self._contrast(keys_a, self.heads_A, self.G_BA(fake_b, self.layers), self.heads_B),
            "nce_B": share * self._contrast(keys_b, self.heads_B, self.G_AB(fake_a, self.layers), self.heads_A),
        }
        if self.identity:
            terms["identity_A"] = 0.5 * self.identity * l1_loss(self.G_BA(real_a), real_a)
            terms["identity_B"] = 0.5 * self.identity * l1_loss(self.G_AB(real_b), real_b)
        yield "generators", terms

    def _new_heads(self, config: Config, encoder: nn.Module, width: int) -> ProjectionHeads:
        channels = [encoder.channels_after(layer) for layer in self.layers]
        return initialize(ProjectionHeads(channels, width), config.init.name, config.init.gain)

    def _contrast(
        self, keys: list[Tensor], key_heads: nn.Module, queries: list[Tensor], query_heads: nn.Module
    ) -> Tensor:
        """The mean over layers, at places drawn anew."""
        places = draw_places(keys, self.patches)
        with torch.no_grad():
            keys = key_heads(keys, places)
        queries = query_heads(queries, places)
        return torch.stack([patch_nce(q, k, self.temperature) for q, k in zip(queries, keys, strict=True)]).mean()
