"""KID, the kernel distance that small sets allow: its expectation does not depend on the number of images.

Bińkowski et al., "Demystifying MMD GANs" (arXiv 1801.01401): the squared maximum mean discrepancy under the
polynomial kernel k(x, y) = (x·y / d + 1)³ on the features of a network with d outputs.
"""

from __future__ import annotations

import torch
from torch import Tensor

ROWS = 2048  # of the kernel matrix held at once: 2048 x 20,000 float64 are 0.3 GB


def polynomial_kernel(x: Tensor, y: Tensor) -> Tensor:
    """(n, d) and (m, d) features to their (n, m) kernel values."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def kid(x: Tensor, y: Tensor) -> Tensor:
    """Unbiased KID of (n, d) and (m, d) features as a float64 scalar; papers print it times 100 or 1000.

    Uses every pair of images, so it has no random part; zero on average for two sets from one distribution, and
    then negative half of the time. Raises ValueError for fewer than two rows or different d.
    """
    x, y = _checked(x, y)
    across = sum(polynomial_kernel(rows, y).sum() for rows in x.split(ROWS)) / (len(x) * len(y))
    return _mean_between(x) + _mean_between(y) - 2 * across


def kid_of_subsets(x: Tensor, y: Tensor, subsets: int = 100, size: int = 1000, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of KID over random subsets without replacement, the form that most papers print.

    `size` is cut to the smaller set. The deviation describes the drawing of subsets, not the error of the KID.
    """
    x, y = _checked(x, y)
    size = min(size, len(x), len(y))
    generator = torch.Generator().manual_seed(seed)
    values = torch.stack([kid(_drawn(x, size, generator), _drawn(y, size, generator)) for _ in range(subsets)])
    return values.mean(), values.std(correction=0)


def kid_spread(x: Tensor, y: Tensor, draws: int = 200, seed: int = 0) -> Tensor:
    """Standard error of `kid` by bootstrap over images.

    A pair of copies of one image is left out of the sums: its kernel value belongs to the diagonal.
    """
    x, y = _checked(x, y)
    generator = torch.Generator().manual_seed(seed)
    within_x, within_y, across = polynomial_kernel(x, x), polynomial_kernel(y, y), polynomial_kernel(x, y)
    values = []
    for _ in range(draws):
        a, b = _times_drawn(len(x), generator).to(x), _times_drawn(len(y), generator).to(y)
        values.append(_weighted(within_x, a) + _weighted(within_y, b) - 2 * (a @ across @ b) / (a.sum() * b.sum()))
    return torch.stack(values).std()


def _checked(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise ValueError(f"features must be (n, d) with one d, got {tuple(x.shape)} and {tuple(y.shape)}")
    if min(len(x), len(y)) < 2:
        raise ValueError(f"KID needs at least 2 images on each side, got {len(x)} and {len(y)}")
    return x.double(), y.double()


def _mean_between(x: Tensor) -> Tensor:
    """Mean kernel value over all pairs of different rows."""
    total = sum(polynomial_kernel(rows, x).sum() for rows in x.split(ROWS))
    diagonal = ((x.square().sum(1) / x.shape[1] + 1) ** 3).sum()
    return (total - diagonal) / (len(x) * (len(x) - 1))


def _drawn(x: Tensor, size: int, generator: torch.Generator) -> Tensor:
    return x[torch.randperm(len(x), generator=generator)[:size].to(x.device)]


def _times_drawn(n: int, generator: torch.Generator) -> Tensor:
    return torch.bincount(torch.randint(n, (n,), generator=generator), minlength=n)


def _weighted(kernel: Tensor, weights: Tensor) -> Tensor:
    pairs = weights.sum() ** 2 - weights.square().sum()
    return (weights @ kernel @ weights - weights.square() @ kernel.diagonal()) / pairs
