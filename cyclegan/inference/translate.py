"""Translating pictures with a trained generator."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@torch.no_grad()
def translate_tensor(generator: nn.Module, images: Tensor, *style: Tensor) -> Tensor:
    """(N, C, H, W) in [-1, 1] -> (N, C', H, W) in [-1, 1], for sides of any length; some take a style, (1, 3, h, w).

    The sides are padded to what the generator takes (its `multiple` and `smallest`) and the result is cut back.
    """
    height, width = images.shape[2:]
    padded = pad_for(generator, images)
    return generator(padded, *style)[..., :height, :width].float().clamp(-1, 1)


def pad_for(generator: nn.Module, images: Tensor) -> Tensor:
    """Continue the right and bottom edges up to sides that the generator takes."""
    sides = padded_sides(generator, *images.shape[2:])
    rows, columns = (padded - side for padded, side in zip(sides, images.shape[2:], strict=True))
    return F.pad(images, (0, columns, 0, rows), mode="replicate") if rows or columns else images


def padded_sides(generator: nn.Module, height: int, width: int) -> tuple[int, int]:
    """The nearest sides, not smaller than these, that the generator takes."""
    return tuple(max(side + -side % generator.multiple, generator.smallest) for side in (height, width))
