"""Losses as a whole, whether an algorithm yields them in parts or not."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from cyclegan.algorithms import Algorithm, Parts, Terms, parts_of


def whole(terms: Terms | Parts) -> Terms:
    return {name: term for part in parts_of(terms) for name, term in part().items()}


def losses_of(algorithm: Algorithm, batch: dict[str, Tensor]) -> Iterator[tuple[str, Terms]]:
    for optimizer, terms in algorithm.losses(batch):
        yield optimizer, whole(terms)
