"""What shapes a space of styles: near a normal distribution, and about styles rather than contents."""

from __future__ import annotations

from torch import Tensor


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """(N, D) of independent normal distributions -> (N,) Kullback-Leibler divergences from N(0, I)."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(1)


def disentanglement(first: Tensor, second: Tensor, style: Tensor) -> Tensor:
    """(N,): two contents painted in a style should be closer to each other than the first is to the style itself.

    max(0, |y1 - y2|^2 - |y1 - s|^2) of their encodings (N, D), "Variational Style Transfer" (TU Munich 2019).
    """
    return ((first - second).square().sum(1) - (first - style).square().sum(1)).clamp(min=0)
