"""Style as a distribution of features: how far one picture's are from another's (Li et al. 2017, arXiv 1701.01036).

The Gram loss of Gatys et al. (2015, arXiv 1508.06576) is one such distance among others. A picture's places, h * w of
them, are samples in the space of C channels; what a kernel needs to know of a style is described once and kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from cyclegan.losses import precise

Kernel = Literal["gram", "linear", "polynomial", "gaussian", "statistics"]
SAMPLED = ("polynomial", "gaussian")  # they compare all pairs of places


@dataclass(frozen=True)
class Style:
    """What a kernel keeps of a layer's features.

    values: (N, D) where the distance is one of vectors; (N, C, places) for sampled kernels
    shares: (N, places), each place's part of the whole; None for vectors
    """

    kernel: Kernel
    values: Tensor
    shares: Tensor | None = None


def gram(features: Tensor, mask: Tensor | None = None) -> Tensor:
    """(N, C, h, w) -> (N, C, C): products of channels, meaned over the places (inside the mask): G / M of Gatys et al.

    Pictures of different sizes can so be compared; divided by M once, their 1 / (4 N^2 M^2) becomes 1 / (4 N^2).
    """
    features = precise(features)
    x, share = features.flatten(2), _shares(features, mask)
    with torch.autocast(x.device.type, enabled=False):
        return (x * share[:, None]) @ x.transpose(1, 2)


def describe(
    features: Tensor,
    kernel: Kernel = "gram",
    mask: Tensor | None = None,
    places: int = 1024,
    draw: torch.Generator | None = None,
) -> Style:
    """The style of one layer's features.

    Args:
        features: (N, C, h, w)
        kernel: gram: all products of channels; linear: means; statistics: means and standard deviations, as batch norm
            has them; polynomial: (x y)^2, the same as gram but of sampled places; gaussian: exp(-|x - y|^2 / 2 s^2)
        mask: (N or 1, 1, h, w), how much each place counts; not all 0
        places: polynomial and gaussian draw so many of them where there are more
        draw: for these, on the CPU; torch's own if not given
    """
    channels, features = features.shape[1], precise(features)  # squares of a VGG's are beyond half precision's 65504
    if kernel == "gram":
        return Style(kernel, gram(features, mask).flatten(1) / (2 * channels))
    x, share = features.flatten(2), _shares(features, mask)
    if kernel in SAMPLED:
        return Style(kernel, *_sampled(x, share, mask is None, places, draw))
    mean = (x * share[:, None]).sum(2)
    if kernel == "linear":
        return Style(kernel, mean / channels**0.5)
    variance = ((x - mean[..., None]).square() * share[:, None]).sum(2)
    return Style(kernel, torch.cat([mean, (variance + 1e-5).sqrt()], 1) / channels**0.5)  # a root of 0 has no gradient


def describe_layers(features: Mapping[str, Tensor], layers: Iterable[str], kernel: Kernel) -> dict[str, Style]:
    """The styles of these layers."""
    return {name: describe(features[name], kernel) for name in layers}


def style_distance(found: Style, wanted: Style, relative: bool = False) -> Tensor:
    """(N,) squared distances, at least 0; the descriptions are of one kernel, `wanted` is of N pictures or of one.

    gram: equation 4 of Gatys et al. 2015. linear, polynomial, gaussian: the squared maximum mean discrepancy, divided
    by C, by 4 C^2 and by 1; the bandwidth of gaussian is the mean squared distance of `wanted`'s places. statistics: by
    C. `relative` divides by what an empty picture (all features 0) would score, which makes weights comparable between
    layers, kernels, networks and sizes.
    """
    if found.kernel not in SAMPLED:
        distance = (found.values - wanted.values).square().sum(1)
        scale = wanted.values.square().sum(1)
    else:
        own, other, cross = (_mean_kernel(a, b, wanted) for a, b in ((found, found), (wanted, wanted), (found, wanted)))
        distance, scale = own + other - 2 * cross, other
    return distance / scale.clamp(min=1e-12) if relative else distance


def style_loss(
    found: Mapping[str, Style], wanted: Mapping[str, Style], weights: Mapping[str, float], relative: bool = False
) -> Tensor:
    """(N,) the layers' distances, weighted (equation 5 of Gatys et al. 2015)."""
    distances = [weight * style_distance(found[name], wanted[name], relative) for name, weight in weights.items()]
    return torch.stack(distances).sum(0)


def content_loss(found: Tensor, wanted: Tensor, relative: bool = False) -> Tensor:
    """(N,) half the sum of squared differences of features, equation 1 of Gatys et al. 2015.

    `relative` divides by what features of 0 would score, as in `style_distance`.
    """
    found, wanted = precise(found), precise(wanted)
    loss = 0.5 * (found - wanted).flatten(1).square().sum(1)
    return loss / (0.5 * wanted.flatten(1).square().sum(1)).clamp(min=1e-12) if relative else loss


def _shares(features: Tensor, mask: Tensor | None) -> Tensor:
    """(N or 1, places) that add up to 1."""
    if mask is None:
        return features.new_full((1, features[0, 0].numel()), 1 / features[0, 0].numel())
    return mask.flatten(1) / mask.flatten(1).sum(1, keepdim=True)


def _sampled(
    x: Tensor, share: Tensor, evenly: bool, places: int, draw: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """(N, C, places) and their shares: each place at most once without a mask, as often as it counts with one."""
    share = share.expand(len(x), -1)
    if x.shape[2] <= places:
        return x, share
    chosen = torch.multinomial(share.cpu(), places, replacement=not evenly, generator=draw).to(x.device)
    x = x.gather(2, chosen[:, None].expand(-1, x.shape[1], -1))
    return x, torch.full_like(chosen, 1, dtype=x.dtype) / places


def _mean_kernel(a: Style, b: Style, wanted: Style) -> Tensor:
    """(N,) the kernel's mean over all pairs of places of a and b."""
    with torch.autocast(a.values.device.type, enabled=False):
        products = a.values.transpose(1, 2) @ b.values  # (N, places of a, places of b)
    if a.kernel == "polynomial":
        values = products.square() / (4 * a.values.shape[1] ** 2)
    else:
        lengths = a.values.square().sum(1)[:, :, None] + b.values.square().sum(1)[:, None]
        spread = _spread(wanted).clamp(min=1e-12)[:, None, None]
        values = torch.exp(-(lengths - 2 * products).clamp(min=0) / (2 * spread))
    return (values * a.shares[:, :, None] * b.shares[:, None]).sum((1, 2))


def _spread(style: Style) -> Tensor:
    """(N,) mean squared distance of all pairs of its places: twice the variance."""
    mean = (style.values * style.shares[:, None]).sum(2)
    square = (style.values.square().sum(1) * style.shares).sum(1)
    return 2 * (square - mean.square().sum(1))
