"""From picture to network input, as each of three libraries does it: FID depends on this as much as on the pictures.

Each function takes uint8 (n, 3, h, w) to float32 (n, 3, 299, 299) in [-1, 1]. At 299 x 299 they differ by their
normalisation only; above it `clean` alone filters before it drops pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

SIDE = 299


def pytorch_fid(pictures: Tensor) -> Tensor:
    """Bilinear between pixel centres, without antialiasing (also clean-fid's `legacy_pytorch`)."""
    x = F.interpolate(pictures.float() / 255, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    return 2 * x - 1


def torch_fidelity(pictures: Tensor) -> Tensor:
    """TensorFlow 1's bilinear, which samples at `row * height / 299` (also TTUR, StyleGAN and ADM)."""
    x = pictures.float()
    top, bottom, down = _tensorflow1_samples(x.shape[2], x.device)
    left, right, along = _tensorflow1_samples(x.shape[3], x.device)
    upper, lower = x[:, :, top], x[:, :, bottom]
    upper = upper[..., left] + (upper[..., right] - upper[..., left]) * along
    lower = lower[..., left] + (lower[..., right] - lower[..., left]) * along
    return (upper + (lower - upper) * down[:, None] - 128) / 128


def clean(pictures: Tensor) -> Tensor:
    """Pillow's antialiased bicubic on floats, cut to 0..255 and not rounded (clean-fid's `clean`)."""
    # Doubles: Pillow computes its filter in them, and float32 positions are off by up to 0.003 grey levels.
    x = F.interpolate(pictures.double(), size=(SIDE, SIDE), mode="bicubic", antialias=True, align_corners=False)
    return (x.float().clamp(0, 255) - 128) / 128


PROTOCOLS = {"pytorch-fid": pytorch_fid, "torch-fidelity": torch_fidelity, "clean": clean}


def _tensorflow1_samples(size: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Lower and upper neighbour of each output position and how far it lies towards the upper, (299,) each."""
    position = torch.arange(SIDE, device=device, dtype=torch.float32) * (size / SIDE)
    lower = position.floor().long()
    return lower, (lower + 1).clamp(max=size - 1), position - lower
