"""Linear style transfer (Li, Liu, Kautz & Yang 2018, arXiv 1808.04537): any style, by a matrix from two networks."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from pydantic import NonNegativeFloat
from torch import Tensor, nn

from cyclegan.algorithms import Algorithm, Terms, own_generator
from cyclegan.config import Config
from cyclegan.losses.style import Kernel, content_loss, describe_layers, style_loss


class Linear(Algorithm):
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
        super().__init__()
        self.content, self.beta, self.reconstruction = content, beta, reconstruction
        self.kernel, self.relative = kernel, relative
        self.G = own_generator(config, "linear")
        self.G.start_as_identity()
        self.layer, self.style_layers = self.G.layer, self.G.style_layers()
        self.backbone = self.G.load_encoder(list(self.style_layers), weights)

    def trained(self) -> dict[str, list[nn.Module]]:
        return {"generators": [self.G]}

    def generators(self) -> dict[str, nn.Module]:
        return {"AtoB": self.G}

    def losses(self, batch: dict[str, Tensor]) -> Iterator[tuple[str, Terms]]:
        real = batch["A"]
        fake, plain = self.G(real, batch["B"], learning=True)
        batch["fake_B"] = fake
        found, again = self.backbone(fake), self.backbone(plain)[self.layer]
        with torch.no_grad():
            wanted = self.backbone(real)[self.layer]
            style = describe_layers(self.backbone(batch["B"]), self.style_layers, self.kernel)
        painted = describe_layers(found, self.style_layers, self.kernel)
        pixels = (plain - real[..., : plain.shape[2], : plain.shape[3]]).square().mean()
        features = content_loss(again, wanted, self.relative).mean()
        yield (
            "generators",
            {
                "content_B": self.content * content_loss(found[self.layer], wanted, self.relative).mean(),
                "style_B": self.beta * style_loss(painted, style, self.style_layers, self.relative).mean(),
                "reconstruction": self.reconstruction * (pixels + features),
            },
        )
