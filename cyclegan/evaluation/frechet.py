"""The Fréchet distance of two Gaussians, |m1 - m2|² + Tr S1 + Tr S2 - 2 Tr (S1 S2)^½, without a matrix square root.

Heusel et al. (arXiv 1706.08500) define the FID by it. `sqrtm` of a product of rank n - 1 among 2048 takes seconds,
may turn complex and is off by 1e-4; what is done here instead takes roots of eigenvalues that are not rounding noise.
All in float64: in float32 it is wrong by whole units.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.linalg.lapack import dsygst
from torch import Tensor

from cyclegan.evaluation.bootstrap import times_drawn
from cyclegan.evaluation.statistics import EvaluationError, Statistics


def frechet_distance(a: Statistics, b: Statistics) -> Tensor:
    """Fréchet distance as a float64 scalar; zero to rounding for equal sets, and then of either sign."""
    if a.mu.shape != b.mu.shape:
        raise EvaluationError(f"features of {len(a.mu)} and of {len(b.mu)} numbers cannot be compared")
    return (a.mu - b.mu).square().sum() + a.total_variance + b.total_variance - 2 * _root_trace(a, b)


def frechet_infinity(x: Tensor, reference: Statistics, points: int = 15, seed: int = 0) -> Tensor:
    """The distance that infinitely many images would have, by a line through distances of subsets over 1 / size.

    Chong and Forsyth (arXiv 1911.07023). `x` is (n, d) features; the subsets go from 2.5 d images, as the paper's 5,000
    for 2,048 features, up to n, which must be 5 d: below, the bias is no straight line and the result too low. The
    reference's own share of the bias stays. Raises EvaluationError for fewer images.
    """
    n, d = x.shape
    check_infinity(n, d)
    generator = torch.Generator().manual_seed(seed)
    sizes = np.linspace(max(2.5 * d, n / 10), n, points).round().astype(int)
    subsets = (x[torch.randperm(n, generator=generator)[:size]] for size in sizes)
    distances = [frechet_distance(Statistics.of(subset), reference).item() for subset in subsets]
    _, at_infinity = np.polyfit(1 / sizes, distances, 1)
    return torch.tensor(at_infinity, dtype=torch.float64)


def check_infinity(n: int, d: int) -> None:
    """Raises EvaluationError if n images with d features are too few for `frechet_infinity`."""
    if n < 5 * d:
        raise EvaluationError(f"FID∞ with {d} features needs at least {5 * d} images, got {n}")


def frechet_draws(x: Tensor, y: Tensor, draws: int = 100, seed: int = 0) -> Tensor:
    """The distance of (n, d) and (m, d) features in each of (draws,) bootstrap draws over the images of both sides."""
    generator = torch.Generator().manual_seed(seed)
    times = zip(*(times_drawn(len(z), draws, generator) for z in (x, y)), strict=True)
    return torch.stack([frechet_distance(Statistics.of_drawn(x, a), Statistics.of_drawn(y, b)) for a, b in times])


def _root_trace(a: Statistics, b: Statistics) -> Tensor:
    """Tr (S1 S2)^½, the sum of the roots of S1 S2's eigenvalues."""
    if a.factor is not None and b.factor is not None:
        # S1 S2 = A'A B'B has the squares of A B''s singular values: no root is taken at all.
        return torch.linalg.svdvals(a.factor @ b.factor.T).sum()
    if a.factor is not None:
        return _sum_of_roots(a.factor @ b.sigma @ a.factor.T)
    if b.factor is not None:
        return _sum_of_roots(b.factor @ a.sigma @ b.factor.T)
    return _sum_of_roots(_congruent(a.sigma, b.sigma))


def _sum_of_roots(matrix: Tensor) -> Tensor:
    """Of the eigenvalues of a symmetric positive semidefinite matrix, of which only the lower triangle is read."""
    return torch.linalg.eigvalsh(matrix, UPLO="L").clamp(min=0).sqrt().sum()


def _congruent(a: Tensor, b: Tensor) -> Tensor:
    """R' b R for an R with R R' = a: its eigenvalues are those of a b, and it is symmetric."""
    lower, rank_deficient = torch.linalg.cholesky_ex(a)
    if not rank_deficient:
        product, _ = dsygst(b.numpy(), lower.numpy(), itype=2, lower=1)  # a third of the time of two products
        return torch.from_numpy(product)
    values, vectors = torch.linalg.eigh(a)
    root = vectors * values.clamp(min=0).sqrt()
    return root.T @ b @ root
