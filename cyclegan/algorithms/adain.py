"""AdaIN (Huang & Belongie 2017, arXiv 1703.06868): one decoder for any style, from statistics of features."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import NonNegativeFloat
from torch import Tensor

from cyclegan.algorithms import Terms
from cyclegan.algorithms._styled import Styled
from cyclegan.config import Config
from cyclegan.losses.style import Kernel


class AdaIN(Styled):
    """Contents are domain A, styles domain B; a frozen VGG encodes, the decoder learns by equations 11 to 13.

    Args:
        content: weight of the distance of the picture's features to those that were decoded
        beta: weight of the style, over all layers up to the encoder's last
        kernel: how styles are compared: statistics (the paper's), gram, linear, polynomial or gaussian
        relative: divide each loss by what an empty picture would score; false: sums and means as they are
        weights: torchvision's file of the encoder, where it is not found or downloaded; random: none, for tests only
    """

    def __init__(
        self,
        config: Config,
        content: NonNegativeFloat = 1.0,
        beta: NonNegativeFloat = 10.0,
        kernel: Kernel = "statistics",
        relative: bool = True,
        weights: str | None = None,
    ):
        super().__init__(config, "adain", content, beta, kernel, relative, weights)

    def losses(self, batch: dict[str, Tensor]) -> Iterator[tuple[str, Terms]]:
        batch["fake_B"], wanted = self.G(batch["A"], batch["B"], learning=True)
        yield "generators", self.painted(batch["fake_B"], wanted.float(), batch["B"])
