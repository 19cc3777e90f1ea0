"""Translating pictures with a trained generator."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@torch.no_grad()
def translate_tensor(generator: nn.Module, images: Tensor) -> Tensor:
    """(N, C, H, W) in [-1, 1] -> (N, C', H, W) in [-1, 1], for sides of any length.

    The sides are padded to what the generator takes (its `multiple` and `smallest`) and the result is cut back.
    """
    height, width = images.shape[2:]
    padded = pad_for(generator, images)
    return generator(padded)[..., :height, :width].float().clamp(-1, 1)


def pad_for(generator: nn.Module, images: Tensor) -> Tensor:
    """Continue the right and bottom edges up to sides that the generator takes."""
    multiple, smallest = generator.multiple, generator.smallest
    rows, columns = (max(-side % multiple, smallest - side) for side in images.shape[2:])
    return F.pad(images, (0, columns, 0, rows), mode="replicate") if rows or columns else images
