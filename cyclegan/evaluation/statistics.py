"""Mean and covariance of features: from all of them at once, or batch by batch in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from cyclegan.errors import UserError


class EvaluationError(UserError, ValueError):
    """Pictures, features or files that cannot be evaluated; the message names them and says what was expected."""


@dataclass(frozen=True)
class Statistics:
    """Mean and unbiased covariance of n features of d numbers, in float64.

    `factor` (rows, d) has `factor.T @ factor` as covariance; given for rows <= d, where it is smaller and more exact
    than the (d, d) `given_sigma`. `n` is None for a file that does not say.
    """

    n: int | None
    mu: Tensor
    given_sigma: Tensor | None = None
    factor: Tensor | None = None

    @classmethod
    def of(cls, features: Tensor) -> Statistics:
        """Of (n, d) features, n >= 2."""
        n = len(features)
        if n < 2:
            raise EvaluationError(f"a covariance needs at least 2 images, got {n}")
        mu = features.double().mean(0)
        return cls._centred(n, mu, features.double() - mu)

    @classmethod
    def of_drawn(cls, features: Tensor, times: Tensor) -> Statistics:
        """Of (n, d) features of which each counts (n,) times; the repeated rows are never written out."""
        n = int(times.sum())
        there = times > 0
        rows, times = features[there].double(), times[there].double()
        mu = times @ rows / n
        return cls._centred(n, mu, (rows - mu) * times.sqrt()[:, None])

    @classmethod
    def _centred(cls, n: int, mu: Tensor, rows: Tensor) -> Statistics:
        if len(rows) <= len(mu):
            return cls(n, mu, factor=rows / (n - 1) ** 0.5)
        return cls(n, mu, given_sigma=_gram(rows) / (n - 1))

    @cached_property
    def sigma(self) -> Tensor:
        """The (d, d) covariance."""
        return self.given_sigma if self.factor is None else self.factor.T @ self.factor

    @property
    def total_variance(self) -> Tensor:
        """The covariance's trace."""
        return self.given_sigma.trace() if self.factor is None else self.factor.square().sum()


class Moments:
    """Statistics of a stream, in float64 and the memory of one covariance; any split and order gives the same.

    Sums are taken about the first batch's mean, so that features far from zero lose no digits; two streams merge by
    Chan, Golub and LeVeque (1983).
    """

    def __init__(self) -> None:
        self.n = 0
        self.shift = self.total = self.scatter = torch.zeros(())

    def update(self, features: Tensor) -> None:
        """Take in (n, d) features."""
        if self.n == 0 and len(features):
            self._start(features.double().mean(0))
        if len(features):
            centred = features.double() - self.shift
            self.n += len(features)
            self.total += centred.sum(0)
            self.scatter += _gram(centred)

    def merge(self, other: Moments) -> None:
        """Take in another stream."""
        if other.n == 0:
            return
        if self.n == 0:
            self._start(other.shift)
        apart = other.shift - self.shift
        both = torch.outer(other.total, apart)
        self.scatter += other.scatter + both + both.T + other.n * torch.outer(apart, apart)
        self.total += other.total + other.n * apart
        self.n += other.n

    def statistics(self) -> Statistics:
        if self.n < 2:
            raise EvaluationError(f"a covariance needs at least 2 images, got {self.n}")
        drift = self.total / self.n
        sigma = (self.scatter - self.n * torch.outer(drift, drift)) / (self.n - 1)
        return Statistics(self.n, self.shift + drift, given_sigma=sigma)

    def _start(self, shift: Tensor) -> None:
        self.shift, self.total = shift, torch.zeros_like(shift)
        self.scatter = shift.new_zeros(len(shift), len(shift))


def _gram(rows: Tensor) -> Tensor:
    """(n, d) to its (d, d) products of columns, on the CPU."""
    array = rows.cpu().numpy()
    return torch.from_numpy(array.T @ array)  # numpy sees one array twice and takes half the time of torch
