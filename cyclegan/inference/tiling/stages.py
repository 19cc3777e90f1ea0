"""Layers computed for a picture of any size, window by window.

Each stage is asked for windows of its output and asks the one before it for slightly larger ones; nothing is held but
what is on its way, and what a `Stored` stage keeps in a scratch file.
"""

from __future__ import annotations

import math
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from cyclegan.data.images import to_tensor
from cyclegan.inference.tiling.scratch import check_space, release
from cyclegan.inference.tiling.shared_norms import Moments


class Box(NamedTuple):
    top: int
    bottom: int
    left: int
    right: int

    @property
    def rows(self) -> tuple[int, int]:
        return self.top, self.bottom

    @property
    def columns(self) -> tuple[int, int]:
        return self.left, self.right


class Stage(ABC):
    """The output of a layer for the whole picture, of which windows can be had."""

    def __init__(self, channels: int, height: int, width: int, side: int):
        self.channels, self.height, self.width = channels, height, width
        self.side = side  # of a tile at this resolution

    @abstractmethod
    def window(self, box: Box) -> Tensor:
        """(1, channels, rows, columns)."""

    def boxes(self) -> Iterator[Box]:
        for top in range(0, self.height, self.side):
            for left in range(0, self.width, self.side):
                yield Box(top, min(top + self.side, self.height), left, min(left + self.side, self.width))

    def moments(self) -> Moments:
        moments = Moments()
        for box in self.boxes():
            moments.add(self.window(box))
        return moments


class Pixels(Stage):
    """The picture itself, in [-1, 1]."""

    def __init__(self, pixels: np.ndarray, side: int, device: torch.device):
        super().__init__(pixels.shape[2], *pixels.shape[:2], side)
        self.pixels, self.device = pixels, device

    def window(self, box: Box) -> Tensor:
        image = to_tensor(self.pixels[box.top : box.bottom, box.left : box.right])
        release(self.pixels)
        return image.to(self.device)[None]


class Padded(Stage):
    """Continued beyond its edges: (before, after) rows and columns, by index or by zeros."""

    def __init__(self, source: Stage, rows: tuple[int, int], columns: tuple[int, int], mode: str):
        super().__init__(source.channels, source.height + sum(rows), source.width + sum(columns), source.side)
        self.source, self.mode, self.before = source, mode, (rows[0], columns[0])

    @classmethod
    def picture(cls, pixels: np.ndarray, sides: tuple[int, int], device: torch.device, side: int = 512) -> Padded:
        """A picture with the sides that the generator takes, as `pad_for` does it."""
        height, width = pixels.shape[:2]
        source = Pixels(pixels, side, device)
        return cls(source, (0, sides[0] - height), (0, sides[1] - width), "replicate")

    def window(self, box: Box) -> Tensor:
        rows, columns = (
            self._sources(*box.rows, 0, self.source.height),
            self._sources(*box.columns, 1, self.source.width),
        )
        inner = Box(*_extent(rows, self.source.height), *_extent(columns, self.source.width))
        values = self.source.window(inner)
        if self.mode == "zero":
            around = (
                inner.left - columns[0],
                columns[-1] + 1 - inner.right,
                inner.top - rows[0],
                rows[-1] + 1 - inner.bottom,
            )
            return F.pad(values, around)
        device = values.device
        return values[:, :, (rows - inner.top).to(device)][:, :, :, (columns - inner.left).to(device)]

    def _sources(self, start: int, stop: int, axis: int, size: int) -> Tensor:
        places = torch.arange(start, stop) - self.before[axis]
        if self.mode == "reflect":
            places = size - 1 - (size - 1 - places.abs()).abs()
        return places.clamp(0, size - 1) if self.mode == "replicate" else places


def _extent(places: Tensor, size: int) -> tuple[int, int]:
    """The span inside [0, size) that holds all these places; one line if all lie outside."""
    start, stop = int(places.min()), int(places.max()) + 1
    return min(max(start, 0), size - 1), max(min(stop, size), 1)


class Pointwise(Stage):
    """Values that depend on the same place alone: activations, dropout and batch norm in eval mode, fixed norms."""

    def __init__(self, source: Stage, function: Callable[[Tensor], Tensor]):
        super().__init__(source.channels, source.height, source.width, source.side)
        self.source, self.function = source, function

    def window(self, box: Box) -> Tensor:
        return self.function(self.source.window(box))


class Combined(Stage):
    """Two stages put together by a function: a sum, or one behind the other."""

    def __init__(self, first: Stage, second: Stage, function: Callable[[Tensor, Tensor], Tensor], channels: int):
        super().__init__(channels, first.height, first.width, first.side)
        self.first, self.second, self.function = first, second, function

    def window(self, box: Box) -> Tensor:
        return self.function(self.first.window(box), self.second.window(box))


class Convolved(Stage):
    """A convolution without padding of its own: that is a stage before it."""

    def __init__(self, source: Stage, convolve: Callable[[Tensor], Tensor], channels: int, kernel: int, stride: int):
        sides = ((side - kernel) // stride + 1 for side in (source.height, source.width))
        super().__init__(channels, *sides, max(1, source.side // stride))
        self.source, self.convolve, self.kernel, self.stride = source, convolve, kernel, stride

    def window(self, box: Box) -> Tensor:
        grown = Box(*self._needed(*box.rows), *self._needed(*box.columns))
        return self.convolve(self.source.window(grown))

    def _needed(self, start: int, stop: int) -> tuple[int, int]:
        return start * self.stride, (stop - 1) * self.stride + self.kernel


class Transposed(Stage):
    """A transposed convolution; `padding` counts the lines cut from the head of the full result."""

    def __init__(
        self, source: Stage, weight: Tensor, bias: Tensor | None, padding: int, sides: tuple[int, int], groups=1
    ):
        super().__init__(weight.shape[1] * groups, *sides, source.side * 2)
        self.source, self.weight, self.bias, self.padding, self.groups = source, weight, bias, padding, groups

    def window(self, box: Box) -> Tensor:
        rows, columns = self._needed(*box.rows, self.source.height), self._needed(*box.columns, self.source.width)
        values = self.source.window(Box(*rows, *columns))
        full = F.conv_transpose2d(values, self.weight, self.bias, stride=2, groups=self.groups)
        top, left = box.top + self.padding - 2 * rows[0], box.left + self.padding - 2 * columns[0]
        return full[:, :, top : top + box.bottom - box.top, left : left + box.right - box.left]

    def _needed(self, start: int, stop: int, size: int) -> tuple[int, int]:
        """Source lines that reach into [start, stop), and enough of them to cover it."""
        first = math.ceil((start + self.padding - self.weight.shape[2] + 1) / 2)
        return max(0, first), min(size, (stop - 1 + self.padding) // 2 + 1)


class Doubled(Stage):
    """Every value four times (nearest up-sampling by two)."""

    def __init__(self, source: Stage):
        super().__init__(source.channels, source.height * 2, source.width * 2, source.side * 2)
        self.source = source

    def window(self, box: Box) -> Tensor:
        inner = Box(box.top // 2, (box.bottom + 1) // 2, box.left // 2, (box.right + 1) // 2)
        values = F.interpolate(self.source.window(inner), scale_factor=2)
        top, left = box.top - 2 * inner.top, box.left - 2 * inner.left
        return values[:, :, top : top + box.bottom - box.top, left : left + box.right - box.left]


class Stored(Stage):
    """Computed once, window by window, and kept in a file that vanishes with the last reference to it."""

    def __init__(self, source: Stage, scratch: Path | None):
        super().__init__(source.channels, source.height, source.width, source.side)
        self.line = self.channels * 4  # bytes of one place: (height, width, channels) float32
        self.file = tempfile.TemporaryFile(dir=scratch, buffering=0)  # noqa: SIM115, it lives as long as the stage
        self.sums = Moments()
        check_space(scratch, self.line * self.height * self.width)
        for box in source.boxes():
            values = source.window(box)
            self.sums.add(values)
            self._write(box, values)
            self.device, self.in_planes = values.device, values.is_contiguous()

    def window(self, box: Box) -> Tensor:
        values = np.empty((box.bottom - box.top, box.right - box.left, self.channels), np.float32)
        for row, line in zip(range(*box.rows), values, strict=True):
            self._seek(row, box.left)
            self.file.readinto(line.reshape(-1).view(np.uint8))
        window = torch.from_numpy(values).to(self.device).permute(2, 0, 1)[None]
        return window.contiguous() if self.in_planes else window

    def moments(self) -> Moments:
        return self.sums

    def _write(self, box: Box, values: Tensor) -> None:
        lines = np.ascontiguousarray(values[0].permute(1, 2, 0).cpu().numpy())
        for row, line in zip(range(*box.rows), lines, strict=True):
            self._seek(row, box.left)
            if self.file.write(line.reshape(-1).view(np.uint8)) < line.nbytes:
                raise OSError("the scratch folder is full")

    def _seek(self, row: int, column: int) -> None:
        self.file.seek((row * self.width + column) * self.line)
