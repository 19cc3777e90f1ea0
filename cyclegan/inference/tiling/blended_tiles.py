"""Overlapping tiles through a network with the statistics of the shrunk picture, faded into each other."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyclegan.inference.tiling.shared_norms import with_statistics_of
from cyclegan.inference.tiling.stages import Box, Padded
from cyclegan.inference.translate import padded_sides


def blended(
    generator: nn.Module, picture: Padded, side: int, overlap: int, thumbnail: int
) -> Iterator[tuple[Box, Tensor]]:
    """Bands of tiles from top to bottom, each band as wide as the picture."""
    fixed = with_statistics_of(generator, _thumbnail(generator, picture, thumbnail))
    multiple = generator.multiple
    side = max(side // multiple, 2) * multiple
    overlap = min(overlap // multiple * multiple, side - multiple)
    rows, columns = (_spans(length, side, overlap) for length in (picture.height, picture.width))

    def band(top: int, bottom: int) -> Tensor:
        tiles = ((span, fixed(picture.window(Box(top, bottom, *span)))) for span in columns)
        return torch.cat([part for _, part in _faded(tiles, axis=3)], dim=3)

    for (top, bottom), values in _faded(((span, band(*span)) for span in rows), axis=2):
        yield Box(top, bottom, 0, picture.width), values


def _thumbnail(generator: nn.Module, picture: Padded, longest: int) -> Tensor:
    """The picture shrunk by averaging, read in squares, with sides that the generator takes."""
    factor = math.ceil(max(picture.height, picture.width) / longest)
    step = max(512 // factor, 1) * factor

    def shrunk(top: int, left: int) -> Tensor:
        square = Box(top, min(top + step, picture.height), left, min(left + step, picture.width))
        return F.avg_pool2d(picture.window(square), factor, ceil_mode=True)

    tops, lefts = range(0, picture.height, step), range(0, picture.width, step)
    small = torch.cat([torch.cat([shrunk(top, left) for left in lefts], dim=3) for top in tops], dim=2)
    height, width = padded_sides(generator, *small.shape[2:])
    return F.pad(small, (0, width - small.shape[3], 0, height - small.shape[2]), mode="replicate")


def _spans(length: int, side: int, overlap: int) -> list[tuple[int, int]]:
    """Spans of `side` that cover [0, length), neighbours sharing at least `overlap`."""
    if length <= side:
        return [(0, length)]
    starts = [*range(0, length - side, side - overlap), length - side]
    return [(start, start + side) for start in starts]


def _faded(pieces: Iterable[tuple[tuple[int, int], Tensor]], axis: int) -> Iterator[tuple[tuple[int, int], Tensor]]:
    """Overlapping pieces along an axis -> pieces side by side, faded into each other where they overlapped."""
    kept = None
    for (start, stop), values in pieces:
        if kept is not None:
            (first, last), before = kept
            shared, alone = last - start, start - first
            yield (first, start), before.narrow(axis, 0, alone)
            ramp = _ramp(shared, values.device).view([-1 if i == axis else 1 for i in range(4)])
            mixed = before.narrow(axis, alone, shared).lerp(values.narrow(axis, 0, shared), ramp)
            values = torch.cat([mixed, values.narrow(axis, shared, stop - start - shared)], dim=axis)
        kept = ((start, stop), values)
    yield kept


def _ramp(length: int, device: torch.device) -> Tensor:
    """From 0 to 1 over the middle half: near its edges a tile knows least of what lies around it."""
    return ((torch.arange(length, device=device) + 0.5) / length * 2 - 0.5).clamp(0, 1)
