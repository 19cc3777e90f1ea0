"""How close translations are to a known truth: MAE, PSNR, SSIM and LPIPS, one number an image."""

from __future__ import annotations

import torch
from torch import Tensor

from cyclegan.evaluation.statistics import EvaluationError
from cyclegan.losses import structure


def mae(image: Tensor, truth: Tensor) -> Tensor:
    """Mean absolute error of (n, c, h, w) images in [-1, 1] as (n,) values on that scale: 2 is black against white."""
    _check(image, truth)
    return (image.double() - truth.double()).abs().mean((1, 2, 3))


def psnr(image: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of (n, c, h, w) images in [-1, 1] as (n,) values in dB; infinite for equal images."""
    _check(image, truth)
    return 10 * torch.log10(4 / (image.double() - truth.double()).square().mean((1, 2, 3)))


def ssim(image: Tensor, truth: Tensor) -> Tensor:
    """Structural similarity (see losses.structure) of (n, c, h, w) images in [-1, 1] as (n,) values; 1 for equals.

    Raises EvaluationError for sides below 11 pixels.
    """
    _check(image, truth)
    try:
        return structure.ssim(image.double(), truth.double())
    except ValueError as error:
        raise EvaluationError(str(error)) from None


def _check(image: Tensor, truth: Tensor) -> None:
    if image.ndim != 4 or image.shape != truth.shape:
        raise EvaluationError(
            f"pairs must be (n, c, h, w) of one shape, got {tuple(image.shape)} and {tuple(truth.shape)}"
        )
