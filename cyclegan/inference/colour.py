"""Keeping the content's colours (Gatys et al. 2016, arXiv 1606.05897); pictures are (1, C, H, W) in [-1, 1]."""

from __future__ import annotations

import torch
from torch import Tensor

from cyclegan.devices import as_double
from cyclegan.losses.structure import luminance


def recoloured(style: Tensor, content: Tensor) -> Tensor:
    """The style with the mean and the covariance of the content's colours (section 3.1, by matrix square roots)."""
    mean, root, _ = _colours(content)
    own_mean, _, inverse = _colours(style)
    pixels = as_double(style.flatten(2)[0])
    matched = root @ inverse @ (pixels - own_mean) + mean
    return matched.view_as(style).to(style).clamp(-1, 1)


def brightness_matched(style: Tensor, content: Tensor) -> Tensor:
    """The style's luminance (1, 1, H, W) with the mean and the deviation of the content's (section 3.2)."""
    light, wanted = luminance(style), luminance(content)
    deviation, other = (values.std(correction=0) for values in (light, wanted))  # which a single pixel has, too
    return ((light - light.mean()) / deviation.clamp(min=1e-3) * other + wanted.mean()).clamp(-1, 1)


def with_luminance(content: Tensor, light: Tensor) -> Tensor:
    """The content with another luminance (1, 1, H, W): the same added to all channels leaves I and Q as they are."""
    return (content + light - luminance(content)).clamp(-1, 1)


def _colours(picture: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (3, 1), and the root of the covariance and its inverse, (3, 3)."""
    pixels = as_double(picture.flatten(2)[0])
    values, vectors = torch.linalg.eigh(pixels.cov(correction=0) + 1e-5 * torch.eye(3).to(pixels))
    root, inverse = (vectors @ diagonal @ vectors.T for diagonal in (values.sqrt().diag(), values.rsqrt().diag()))
    return pixels.mean(1, keepdim=True), root, inverse
