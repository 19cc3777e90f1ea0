"""Did the translation keep its content? Numbers of an input and its output that need no network and no truth.

All take images (n, c, h, w) in [-1, 1] and give (n,) values in float64. They warn rather than rank: the copy of the
input is perfect by all but `change`.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from cyclegan.devices import as_double
from cyclegan.losses import structure

Generator = Callable[[Tensor], Tensor]


def change(source: Tensor, output: Tensor) -> Tensor:
    """Mean absolute difference, in [0, 2]: near 0, the generator copies."""
    return (as_double(output) - as_double(source)).abs().mean((1, 2, 3))


def cycle_error(source: Tensor, there: Generator, back: Generator) -> Tensor:
    """Mean absolute difference of images and their way there and back, in [0, 2] (Zhu et al. 2017)."""
    return change(source, back(there(source)))


def identity_error(target: Tensor, generator: Generator) -> Tensor:
    """How much a generator changes images that already are of its target domain, in [0, 2]."""
    return change(target, generator(target))


def luminance_correlation(source: Tensor, output: Tensor) -> Tensor:
    """Pearson correlation of the two luminances, in [-1, 1]; below 0, light and dark have changed places.

    0 where either image is flat.
    """
    return structure.correlation(structure.luminance(as_double(source)), structure.luminance(as_double(output)))


def edge_agreement(source: Tensor, output: Tensor) -> Tensor:
    """Pearson correlation of the lengths of the luminances' Sobel gradients, in [-1, 1]: do edges stay in place?

    0 where either image has no edges or the same everywhere.
    """
    return structure.edge_agreement(source.double(), output.double())
