"""KID, the kernel distance that small sets allow: its expectation does not depend on the number of images.

Bińkowski et al., "Demystifying MMD GANs" (arXiv 1801.01401): the squared maximum mean discrepancy under the
polynomial kernel k(x, y) = (x·y / d + 1)³ on the features of a network with d outputs.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from cyclegan.evaluation.bootstrap import times_drawn
from cyclegan.evaluation.statistics import EvaluationError

ROWS = 2048  # of the kernel matrix held at once: 2048 x 20,000 float64 are 0.3 GB


def polynomial_kernel(x: Tensor, y: Tensor) -> Tensor:
    """(n, d) and (m, d) features to their (n, m) kernel values."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def kid(x: Tensor, y: Tensor) -> Tensor:
    """Unbiased KID of (n, d) and (m, d) features as a float64 scalar; papers print it times 100 or 1000.

    Uses every pair of images, so it has no random part; zero on average for two sets from one distribution, and
    then negative half of the time. Raises EvaluationError for fewer than two rows or different d.
    """
    x, y = _checked(x, y)
    across = sum(polynomial_kernel(rows, y).sum() for rows in x.split(ROWS)) / (len(x) * len(y))
    return _mean_between(x) + _mean_between(y) - 2 * across


def kid_of_subsets(
    x: Tensor, y: Tensor, subsets: int = 100, size: int = 1000, seed: int = 2020
) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of KID over random subsets without replacement, the form that most papers print.

    Draws the subsets that torch-fidelity draws for input1 = x, input2 = y and this seed. `size` is cut to the smaller
    set. The deviation describes the drawing of subsets, not the error of the KID.
    """
    x, y = _checked(x, y)
    size = min(size, len(x), len(y))
    random = np.random.RandomState(seed)
    values = torch.stack([kid(_drawn(x, size, random), _drawn(y, size, random)) for _ in range(subsets)])
    return values.mean(), values.std(correction=0)


def kid_draws(x: Tensor, y: Tensor, draws: int = 200, seed: int = 0) -> Tensor:
    """`kid` in each of (draws,) bootstrap draws over the images of both sides.

    A pair of copies of one image is left out of the sums: its kernel value belongs to the diagonal. A draw of copies
    of a single image has no other pairs and is left out whole; raises EvaluationError if fewer than two remain.
    """
    x, y = _checked(x, y)
    generator = torch.Generator().manual_seed(seed)
    a, b = (times_drawn(len(z), draws, generator).to(z) for z in (x, y))
    varied = ((a > 0).sum(1) > 1) & ((b > 0).sum(1) > 1)
    if varied.sum() < 2:
        raise EvaluationError(f"{len(x)} and {len(y)} images are too few for bootstrap draws of kid")
    a, b = a[varied], b[varied]
    across = _weighted_sum(x, y, a, b) / (a.sum(1) * b.sum(1))
    return _weighted_mean_between(x, a) + _weighted_mean_between(y, b) - 2 * across


def _checked(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    if x.ndim != 2 or y.ndim != 2 or x.shape[1] != y.shape[1]:
        raise EvaluationError(f"features must be (n, d) with one d, got {tuple(x.shape)} and {tuple(y.shape)}")
    if min(len(x), len(y)) < 2:
        raise EvaluationError(f"KID needs at least 2 images on each side, got {len(x)} and {len(y)}")
    return x.double(), y.double()


def _mean_between(x: Tensor) -> Tensor:
    """Mean kernel value over all pairs of different rows."""
    total = sum(polynomial_kernel(rows, x).sum() for rows in x.split(ROWS))
    return (total - _diagonal(x).sum()) / (len(x) * (len(x) - 1))


def _diagonal(x: Tensor) -> Tensor:
    """Kernel value of each row with itself."""
    return (x.square().sum(1) / x.shape[1] + 1) ** 3


def _drawn(x: Tensor, size: int, random: np.random.RandomState) -> Tensor:
    return x[torch.from_numpy(random.choice(len(x), size, replace=False)).to(x.device)]


def _weighted_sum(x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Sum over all pairs of kernel values times their two weights, for (draws, n) and (draws, m) weights."""
    parts = zip(x.split(ROWS), a.split(ROWS, dim=1), strict=True)
    return sum(((weights @ polynomial_kernel(rows, y)) * b).sum(1) for rows, weights in parts)


def _weighted_mean_between(x: Tensor, weights: Tensor) -> Tensor:
    pairs = weights.sum(1) ** 2 - weights.square().sum(1)
    return (_weighted_sum(x, x, weights, weights) - weights.square() @ _diagonal(x)) / pairs
