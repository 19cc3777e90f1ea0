"""A generator together with what its callers would else have to do around it, in operations that every format knows."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class Deployed(nn.Module):
    """What is exported: pictures in, translations out; of a generator of content and style, a style may go in as well.

    (N, C, H, W) -> (N, C', H, W); float32 in [-1, 1], or uint8 with `uint8`. H and W are multiples of the generator's
    `multiple` unless `pad`; with `resize` they are any, and the output's are those of `resize`.

    Args:
        generator: in eval mode, of any precision; what goes in and out stays float32
        pad: continue the edges to sides that the generator takes and cut the result back
        uint8: take and give values from 0 to 255
        resize: (height, width) that every picture is squeezed to first, antialiased as Pillow does it
    """

    def __init__(
        self, generator: nn.Module, pad: bool = False, uint8: bool = False, resize: tuple[int, int] | None = None
    ):
        super().__init__()
        self.generator, self.pad, self.uint8, self.resize = generator, pad, uint8, resize
        self.dtype = next(generator.parameters()).dtype

    def forward(self, image: Tensor, style: Tensor | None = None) -> Tensor:
        x = self._signed(image)
        if self.resize:
            x = resized(x, *self.resize)
        height, width = x.shape[2:]
        if self.pad:
            x = _lines(_lines(x, 2, self._padded(height), height), 3, self._padded(width), width)
        x = x.to(self.dtype)
        y = (self.generator(x) if style is None else self.generator(x, self._signed(style).to(self.dtype))).float()
        if self.pad:
            y = _lines(_lines(y, 2, height, height), 3, width, width)
        return ((y.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8) if self.uint8 else y

    def _signed(self, picture: Tensor) -> Tensor:
        return picture.float() / 127.5 - 1 if self.uint8 else picture

    def _padded(self, side: int) -> int:
        count = (side + self.generator.multiple - 1) // self.generator.multiple
        least = self.generator.smallest // self.generator.multiple
        if torch.jit.is_tracing():  # which would freeze a max, but not this, which is the same
            return (count + least + abs(count - least)) // 2 * self.generator.multiple
        return torch.sym_max(count, least) * self.generator.multiple


def _lines(x: Tensor, axis: int, count: int, last: int) -> Tensor:
    """The first `count` lines, or all and then the last one again and again: by index, because slices and pads of
    unknown length are what exporters stumble over."""
    return x.index_select(axis, torch.arange(count, device=x.device).clamp(max=last - 1))


def resized(image: Tensor, height: int, width: int) -> Tensor:
    """(N, C, H, W) -> (N, C, height, width) by Pillow's antialiased bicubic filter, as two matrix products."""
    rows, columns = (_bicubic(size, to, image) for size, to in zip(image.shape[2:], (height, width), strict=True))
    return torch.matmul(torch.matmul(rows, image), columns.transpose(0, 1)).clamp(-1, 1)


def _bicubic(source: int, target: int, like: Tensor) -> Tensor:
    """(target, source) weights: a cubic (a = -0.5) as wide as the picture shrinks, at least 2 pixels to each side."""
    places = torch.arange(source, device=like.device, dtype=like.dtype) + 0.5
    ratio = torch.ones_like(places).sum() / target  # the source's side as a tensor, which exporters keep dynamic
    centres = (torch.arange(target, device=like.device, dtype=like.dtype) + 0.5) * ratio
    distance = ((places[None, :] - centres[:, None]) / ratio.clamp(min=1)).abs()
    near = (1.5 * distance - 2.5) * distance * distance + 1
    far = ((-0.5 * distance + 2.5) * distance - 4) * distance + 2
    weights = torch.where(distance < 1, near, torch.where(distance < 2, far, torch.zeros_like(distance)))
    return weights / weights.sum(dim=1, keepdim=True)


def needed_side(multiple: int, at_least: int) -> int:
    """The smallest multiple that is not below `at_least`."""
    return math.ceil(at_least / multiple) * multiple
