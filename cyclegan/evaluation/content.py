"""Did the translation keep its content? Numbers of an input and its output that need no network and no truth.

All take images (n, c, h, w) in [-1, 1] and give (n,) values in float64. They warn rather than rank: the copy of the
input is perfect by all but `change`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Generator = Callable[[Tensor], Tensor]
LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


def change(source: Tensor, output: Tensor) -> Tensor:
    """Mean absolute difference, in [0, 2]: near 0, the generator copies."""
    return (output.double() - source.double()).abs().mean((1, 2, 3))


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
    return _correlation(_luminance(source), _luminance(output))


def edge_agreement(source: Tensor, output: Tensor) -> Tensor:
    """Pearson correlation of the lengths of the luminances' Sobel gradients, in [-1, 1]: do edges stay in place?

    0 where either image has no edges or the same everywhere.
    """
    return _correlation(_edges(_luminance(source)), _edges(_luminance(output)))


def _luminance(image: Tensor) -> Tensor:
    """(n, 1, h, w)"""
    if image.shape[1] == 1:
        return image.double()
    return (image.double() * image.new_tensor(LUMA, dtype=torch.float64).view(3, 1, 1)).sum(1, keepdim=True)


def _edges(luminance: Tensor) -> Tensor:
    across = luminance.new_tensor([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]]) / 8
    kernels = torch.stack([across, across.T])[:, None]
    return F.conv2d(luminance, kernels).square().sum(1).sqrt()


def _correlation(x: Tensor, y: Tensor) -> Tensor:
    x, y = (z.flatten(1) - z.flatten(1).mean(1, keepdim=True) for z in (x, y))
    norms = x.norm(dim=1) * y.norm(dim=1)
    return torch.where(norms > 1e-12, (x * y).sum(1) / norms.clamp(min=1e-12), 0.0)
