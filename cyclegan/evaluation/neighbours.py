"""Precision and recall, density and coverage: are the translations plausible, and do they cover the real domain?

Kynkäänniemi et al. (arXiv 1904.06991); Naeem et al. (arXiv 2002.09797). Balls around the images of one set, out to
their k-th nearest neighbour in it, stand for where that set lives. Unstable for a hundred images: state n and k.
"""

from __future__ import annotations

import torch
from torch import Tensor

from cyclegan.evaluation.statistics import EvaluationError

ROWS = 2048  # of the distance matrix held at once


def precision_recall(real: Tensor, fake: Tensor, neighbours: int = 3) -> tuple[Tensor, Tensor]:
    """Shares of fakes in a real image's ball, and of real images in a fake's; (n, d) and (m, d) features."""
    return _share_inside(fake, real, neighbours), _share_inside(real, fake, neighbours)


def density_coverage(real: Tensor, fake: Tensor, neighbours: int = 5) -> tuple[Tensor, Tensor]:
    """Real balls around a fake over k, on average (can exceed 1), and the share of real balls that hold a fake."""
    radius = _radii(real, neighbours)
    balls = 0
    nearest = torch.full_like(radius, torch.inf)
    for rows in fake.split(ROWS):
        distance = _distances(rows, real)
        balls = balls + (distance < radius).sum()
        nearest = torch.minimum(nearest, distance.amin(0))
    return balls.double() / (neighbours * len(fake)), (nearest < radius).double().mean()


def _share_inside(points: Tensor, centres: Tensor, neighbours: int) -> Tensor:
    radius = _radii(centres, neighbours)
    inside = [(_distances(rows, centres) <= radius).any(1) for rows in points.split(ROWS)]
    return torch.cat(inside).double().mean()


def _radii(x: Tensor, neighbours: int) -> Tensor:
    """Distance of each row to its k-th nearest other row, (n,)."""
    if len(x) <= neighbours:
        raise EvaluationError(
            f"{neighbours} neighbours need at least {neighbours + 1} images on each side, got {len(x)}"
        )
    # The nearest row is the row itself.
    return torch.cat([_distances(rows, x).kthvalue(neighbours + 1).values for rows in x.split(ROWS)])


def _distances(x: Tensor, y: Tensor) -> Tensor:
    return torch.cdist(x.double(), y.double())
