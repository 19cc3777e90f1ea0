"""Linear style transfer (Li, Liu, Kautz & Yang 2018, arXiv 1808.04537): any style, by a matrix from two networks."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from pydantic import NonNegativeFloat
from torch import Tensor

from cyclegan.algorithms import Terms
from cyclegan.algorithms._styled import Styled
from cyclegan.config import Config
from cyclegan.losses.style import Kernel, content_loss


class Linear(Styled):
    """Contents are domain A, styles domain B; a frozen VGG encodes, everything after it learns.

    The paper trains the decoder first, as an auto-encoder, and keeps it while the transformation learns. Here both
    learn at once, each from its own losses: the decoder to give back pictures whose features nobody transformed, the
    transformation from content and style. It starts as the identity between a projection and its transpose.

    Args:
        content: weight of the distance of the picture's features to the content's, at the generator's layer
        beta: weight of the style, over all layers up to that one
        reconstruction: weight of what the decoder makes of untransformed features: pixels and features
        kernel: how styles are compared: gram (the paper's), statistics, linear, polynomial or gaussian
        relative: divide losses of features by what an empty picture would score; false: sums and means as they are
        weights: torchvision's file of the encoder, where it is not found or downloaded; random: none, for tests only
    """

    def __init__(
        self,
        config: Config,
        content: NonNegativeFloat = 1.0,
        beta: NonNegativeFloat = 10.0,
        reconstruction: NonNegativeFloat = 1.0,
        kernel: Kernel = "gram",
        relative: bool = True,
        weights: str | None = None,
    ):
        super().__init__(config, "linear", content, beta, kernel, relative, weights)
        self.reconstruction = reconstruction
        self.G.start_as_identity()

    def losses(self, batch: dict[str, Tensor]) -> Iterator[tuple[str, Terms]]:
        real = batch["A"]
        batch["fake_B"], plain = self.G(real, batch["B"], learning=True)
        with torch.no_grad():
            wanted = self.backbone(real)[self.layer]
        pixels = (plain - real[..., : plain.shape[2], : plain.shape[3]]).square().mean()
        features = content_loss(self.backbone(plain)[self.layer], wanted, self.relative).mean()
        terms = self.painted(batch["fake_B"], wanted, batch["B"])
        yield "generators", {**terms, "reconstruction": self.reconstruction * (pixels + features)}
