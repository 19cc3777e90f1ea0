"""What a picture and its translation have in common, without any network: (N, C, H, W) in [-1, 1] to (N,) values.

They compute in the pictures' own precision and can be differentiated.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
WINDOW = 11  # pixels of SSIM's Gaussian window, sigma 1.5
SCALES = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # exponents of MS-SSIM (Wang et al. 2003), finest first


def ssim(x: Tensor, y: Tensor) -> Tensor:
    """Structural similarity; 1 for equal pictures, 0 for ones without anything in common.

    Wang et al. 2004 (doi 10.1109/TIP.2003.819861): Gaussian window 11 x 11 with sigma 1.5, K1 = 0.01, K2 = 0.03, only
    whole windows, each channel by itself. Raises ValueError for sides below 11 pixels.
    """
    luminance, structure = _similarities(x, y)
    return (luminance * structure).mean((1, 2, 3))


def ms_ssim(x: Tensor, y: Tensor) -> Tensor:
    """SSIM over five scales (Wang et al. 2003, equation 7). Raises ValueError for sides below 176 pixels."""
    smallest = WINDOW * 2 ** (len(SCALES) - 1)
    if min(x.shape[2:]) < smallest:
        raise ValueError(f"five scales need sides of at least {smallest} pixels, got {tuple(x.shape[2:])}")
    product: Tensor | float = 1.0
    for scale, exponent in enumerate(SCALES):
        luminance, structure = _similarities(x, y)
        last = scale == len(SCALES) - 1
        similarity = (luminance * structure if last else structure).mean((1, 2, 3))
        product = product * similarity.clamp(min=1e-6) ** exponent  # a root of 0 has no gradient
        x, y = F.avg_pool2d(x, 2), F.avg_pool2d(y, 2)
    return product


def total_variation(x: Tensor) -> Tensor:
    """Mean absolute difference of neighbours, across plus along; 0 for flat pictures."""
    return x.diff(dim=3).abs().mean((1, 2, 3)) + x.diff(dim=2).abs().mean((1, 2, 3))


def edge_agreement(x: Tensor, y: Tensor) -> Tensor:
    """Pearson correlation of the lengths of the luminances' Sobel gradients, in [-1, 1]: do edges stay in place?

    0 where either picture has no edges or the same everywhere.
    """
    return correlation(edges(luminance(x)), edges(luminance(y)))


def luminance(x: Tensor) -> Tensor:
    """(N, 1, H, W)"""
    if x.shape[1] == 1:
        return x
    red, green, blue = x.split(1, dim=1)
    return LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue  # a tensor of them would come from the host: a GPU waits


def edges(luminance: Tensor) -> Tensor:
    """(N, 1, H, W) -> (N, H - 2, W - 2) lengths of its Sobel gradients."""
    x = luminance[:, 0]
    down, right = x[:, :-2] + 2 * x[:, 1:-1] + x[:, 2:], x[:, :, :-2] + 2 * x[:, :, 1:-1] + x[:, :, 2:]
    across, along = down[:, :, 2:] - down[:, :, :-2], right[:, 2:] - right[:, :-2]
    return ((across / 8).square() + (along / 8).square() + 1e-12).sqrt()  # a root of 0 has no gradient


def correlation(x: Tensor, y: Tensor) -> Tensor:
    """Pearson's, of all values of each picture; 0 where one of them is flat."""
    x, y = (z.flatten(1) - z.flatten(1).mean(1, keepdim=True) for z in (x, y))
    norms = x.norm(dim=1) * y.norm(dim=1)
    return torch.where(norms > 1e-8, (x * y).sum(1) / norms.clamp(min=1e-8), 0.0)


def _similarities(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """SSIM's two factors, (N, C, H - 10, W - 10) each: of means; of deviations, and of what belongs together."""
    if min(x.shape[2:]) < WINDOW:
        raise ValueError(f"SSIM's window needs sides of at least {WINDOW} pixels, got {tuple(x.shape[2:])}")
    x, y = (x + 1) / 2, (y + 1) / 2  # its constants hold for a range that starts at black
    mean_x, mean_y = _smooth(x), _smooth(y)
    var_x, var_y = _smooth(x * x) - mean_x**2, _smooth(y * y) - mean_y**2
    covariance = _smooth(x * y) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return luminance, (2 * covariance + c2) / (var_x + var_y + c2)


def _smooth(x: Tensor) -> Tensor:
    places = torch.arange(WINDOW, device=x.device, dtype=x.dtype) - WINDOW // 2
    window = torch.exp(-(places**2) / (2 * 1.5**2))
    window = (window / window.sum()).expand(x.shape[1], 1, 1, WINDOW)
    x = F.conv2d(x, window, groups=x.shape[1])
    return F.conv2d(x, window.transpose(2, 3), groups=x.shape[1])
