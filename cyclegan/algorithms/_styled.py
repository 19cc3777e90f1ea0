"""What methods of any style share: a generator in a frozen encoder's features, which also tell content and style."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cyclegan.algorithms import Algorithm, Terms, own_generator
from cyclegan.config import Config
from cyclegan.losses.style import Kernel, content_loss, describe_layers, style_loss


class Styled(Algorithm):
    """Contents are domain A, styles domain B; the one generator is of the kind that has the algorithm's name."""

    def __init__(
        self,
        config: Config,
        name: str,
        content: float,
        beta: float,
        kernel: Kernel,
        relative: bool,
        weights: str | None,
    ):
        super().__init__()
        self.content, self.beta, self.kernel, self.relative = content, beta, kernel, relative
        self.G = own_generator(config, name)
        self.layer, self.style_layers = self.G.layer, self.G.style_layers()
        self.backbone = self.G.load_encoder(list(self.style_layers), weights)

    def trained(self) -> dict[str, list[nn.Module]]:
        return {"generators": [self.G]}

    def generators(self) -> dict[str, nn.Module]:
        return {"AtoB": self.G}

    def painted(self, fake: Tensor, wanted: Tensor, style: Tensor) -> Terms:
        """The terms of pictures whose features at the generator's layer should be `wanted`, in the style of others."""
        found = self.backbone(fake)
        with torch.no_grad():
            model = describe_layers(self.backbone(style), self.style_layers, self.kernel)
        own = describe_layers(found, self.style_layers, self.kernel)
        return {
            "content_B": self.content * content_loss(found[self.layer], wanted, self.relative).mean(),
            "style_B": self.beta * style_loss(own, model, self.style_layers, self.relative).mean(),
        }
