"""SIFID, the FID of one image against one other: the places of its early maps stand for the images of a set.

Shaham et al., SinGAN (arXiv 1905.01164), on the 64 channels after Inception's first maximum pool, 73 x 73 places.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cyclegan.evaluation.frechet import frechet_distance
from cyclegan.evaluation.statistics import Statistics


def sifid(maps: Tensor, other_maps: Tensor) -> Tensor:
    """(n, d, h, w) maps of n images and of their partners to n distances, float64."""
    return torch.stack(
        [
            frechet_distance(Statistics.of(a.flatten(1).T), Statistics.of(b.flatten(1).T))
            for a, b in zip(maps, other_maps, strict=True)
        ]
    )
