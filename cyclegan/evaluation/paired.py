"""How close translations are to a known truth: MAE, PSNR, SSIM and LPIPS, one number an image."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from cyclegan.evaluation.statistics import EvaluationError


def mae(image: Tensor, truth: Tensor) -> Tensor:
    """Mean absolute error of (n, c, h, w) images in [-1, 1] as (n,) values on that scale: 2 is black against white."""
    _check(image, truth)
    return (image.double() - truth.double()).abs().mean((1, 2, 3))


def psnr(image: Tensor, truth: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of (n, c, h, w) images in [-1, 1] as (n,) values in dB; infinite for equal images."""
    _check(image, truth)
    return 10 * torch.log10(4 / (image.double() - truth.double()).square().mean((1, 2, 3)))


def ssim(image: Tensor, truth: Tensor) -> Tensor:
    """Structural similarity of (n, c, h, w) images in [-1, 1] as (n,) values; 1 for equal images.

    Wang et al. 2004 (doi 10.1109/TIP.2003.819861): Gaussian window 11 x 11 with sigma 1.5, K1 = 0.01, K2 = 0.03, only
    whole windows, each channel by itself. Raises EvaluationError for sides below 11 pixels.
    """
    _check(image, truth)
    if min(image.shape[2:]) < 11:
        raise EvaluationError(f"SSIM's window needs sides of at least 11 pixels, got {tuple(image.shape[2:])}")
    x, y = (image.double() + 1) / 2, (truth.double() + 1) / 2  # its constants hold for a range that starts at black
    mean_x, mean_y = _smooth(x), _smooth(y)
    var_x, var_y = _smooth(x * x) - mean_x**2, _smooth(y * y) - mean_y**2
    covariance = _smooth(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    structure = (2 * covariance + c2) / (var_x + var_y + c2)
    return (luminance * structure).mean((1, 2, 3))


def _check(image: Tensor, truth: Tensor) -> None:
    if image.ndim != 4 or image.shape != truth.shape:
        raise EvaluationError(
            f"pairs must be (n, c, h, w) of one shape, got {tuple(image.shape)} and {tuple(truth.shape)}"
        )


def _smooth(x: Tensor) -> Tensor:
    window = torch.exp(-(torch.arange(-5, 6, device=x.device).double() ** 2) / (2 * 1.5**2))
    window = (window / window.sum()).expand(x.shape[1], 1, 1, 11)
    x = F.conv2d(x, window, groups=x.shape[1])
    return F.conv2d(x, window.transpose(2, 3), groups=x.shape[1])
