"""The projection heads of contrastive translation (Park et al. 2020, section 3; H in the paper, netF in its code)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cyclegan.networks.resnet import ResnetBlock, ResnetGenerator


class ProjectionHeads(nn.Module):
    """A small network a layer, from the generator's features at some places to vectors that can be compared.

    Args:
        channels: of the features, layer by layer
        width: of the vectors
    """

    def __init__(self, channels: Sequence[int], width: int = 256):
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Sequential(nn.Linear(count, width), nn.ReLU(), nn.Linear(width, width)) for count in channels
        )

    def forward(self, features: Sequence[Tensor], places: Sequence[Tensor]) -> list[Tensor]:
        """(N, C, H, W) a layer, and the places to look at there -> (N, places, width) a layer."""
        return [
            head(feature.flatten(2).index_select(2, chosen).transpose(1, 2))
            for head, feature, chosen in zip(self.heads, features, places, strict=True)
        ]


def draw_places(features: Sequence[Tensor], count: int) -> list[Tensor]:
    """Up to `count` different places of each (N, C, H, W), as row * W + column."""
    return [torch.randperm(feature[0, 0].numel(), device=feature.device)[:count] for feature in features]


def compared_layers(generator: nn.Module, layers: Sequence[int] | None) -> tuple[int, ...]:
    """The layers of a generator to compare, in rising order; None means its landmarks. Raises ValueError."""
    if not isinstance(generator, ResnetGenerator):
        raise ValueError("it compares features layer by layer, which of the generators only resnet gives")
    if layers is None and not any(isinstance(layer, ResnetBlock) for layer in generator.model):
        raise ValueError("with generator.blocks 0 there is none to compare; take one or more, or set algorithm.layers")
    chosen = sorted(set(generator.landmarks() if layers is None else layers))
    if not chosen or chosen[0] < 0 or chosen[-1] >= len(generator.model):
        raise ValueError(f"layers: {layers}, but this generator's are 0 to {len(generator.model) - 1}")
    return tuple(chosen)
