"""Pictures of any size in bounded memory, without seams: all tiles share the statistics of the norm layers.

Tiles that each had their own InstanceNorm statistics would differ by more than blending can hide. So either (exact)
the network is computed layer by layer: each layer is asked for windows and asks the one before it for slightly larger
ones, statistics add up over all windows of a layer, and what is expensive to compute twice is kept in a scratch file;
or (thumbnail) the statistics come from the shrunk picture, and overlapping tiles are blended.
"""

from __future__ import annotations

import copy
import math
import shutil
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyclegan.data.images import to_bytes, to_tensor
from cyclegan.errors import UserError
from cyclegan.inference.translate import padded_sides
from cyclegan.networks.layers import BlurDown, BlurUp
from cyclegan.networks.resnet import ResnetBlock, ResnetGenerator
from cyclegan.networks.unet import UnetBlock, UnetGenerator

POINTWISE = (nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.Dropout, nn.Identity, nn.BatchNorm2d)  # in eval mode
SHARED_NORMS = (nn.InstanceNorm2d, nn.GroupNorm)


class TilingError(UserError, ValueError):
    """A network or a picture that cannot be cut into tiles; the message says what to do."""


@dataclass(frozen=True)
class Tiling:
    """How large pictures are cut.

    mode: exact (equal to the whole picture at once, through scratch files), thumbnail (faster, a little different;
        no files) or never
    above: pixels of the largest picture that is not cut
    side: of a tile, pixels
    overlap: thumbnail: pixels that neighbours share
    thumbnail: pixels of the longer side of the shrunk picture
    scratch: folder for the files of `exact`; the system's if not given
    """

    mode: Literal["exact", "thumbnail", "never"] = "exact"
    above: int = 2048 * 2048
    side: int = 512
    overlap: int = 128
    thumbnail: int = 1024
    scratch: Path | None = None

    def applies_to(self, height: int, width: int) -> bool:
        return self.mode != "never" and height * width > self.above


@torch.no_grad()
def translate_tiled(
    generator: nn.Module,
    pixels: np.ndarray,
    tiling: Tiling,
    device: torch.device | str = "cpu",
    out: np.ndarray | None = None,
) -> np.ndarray:
    """(height, width, channels), uint8 or float32 in [0, 1] -> the same with the generator's channels.

    Args:
        generator: in eval mode, on `device`
        pixels: may be a numpy.memmap, of which only windows are read
        tiling: how to cut
        device: where the windows are computed
        out: where the result goes, a numpy.memmap for example

    Raises TilingError for networks that it cannot cut and for a scratch folder without space.
    """
    picture = Padded.picture(pixels, padded_sides(generator, *pixels.shape[:2]), torch.device(device))
    windows = _exact(generator, picture, tiling) if tiling.mode == "exact" else _blended(generator, picture, tiling)
    for box, values in windows:
        if out is None:
            out = np.empty((*pixels.shape[:2], values.shape[1]), pixels.dtype)
        part = out[box.top : box.bottom, box.left : box.right]
        values = values[0, :, : part.shape[0], : part.shape[1]].float().clamp(-1, 1).cpu()
        part[...] = to_pixels(values, deep=pixels.dtype != np.uint8)
    return out


def to_pixels(image: Tensor, deep: bool) -> np.ndarray:
    """(channels, height, width) in [-1, 1] -> (height, width, channels), float32 in [0, 1] if deep, else uint8."""
    image = (image + 1) / 2 if deep else to_bytes(image)
    return np.ascontiguousarray(image.permute(1, 2, 0).numpy())


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


# ---- exact: stages that give windows


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


class Moments:
    """Sums over all windows of a stage, by channel, in double precision."""

    def __init__(self):
        self.count, self.sum, self.squares = 0, 0.0, 0.0

    def add(self, values: Tensor) -> None:
        values = values.double()
        self.count += values.shape[2] * values.shape[3]
        self.sum = self.sum + values.sum(dim=(0, 2, 3))
        self.squares = self.squares + values.square().sum(dim=(0, 2, 3))

    def mean_and_variance(self, groups: int) -> tuple[Tensor, Tensor]:
        """(1, channels, 1, 1) each; channels of a group share theirs."""
        channels = len(self.sum)
        mean, square = (total.view(groups, -1).mean(1) / self.count for total in (self.sum, self.squares))
        variance = (square - mean.square()).clamp(min=0)
        return tuple(value.repeat_interleave(channels // groups).view(1, -1, 1, 1) for value in (mean, variance))


class Pixels(Stage):
    """The picture itself, in [-1, 1]."""

    def __init__(self, pixels: np.ndarray, side: int, device: torch.device):
        super().__init__(pixels.shape[2], *pixels.shape[:2], side)
        self.pixels, self.device = pixels, device

    def window(self, box: Box) -> Tensor:
        return to_tensor(self.pixels[box.top : box.bottom, box.left : box.right]).to(self.device)[None]


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

    def __init__(self, source: Stage, weight: Tensor, bias: Tensor | None, stride: int, groups: int = 1):
        kernel = weight.shape[2]
        sides = ((side - kernel) // stride + 1 for side in (source.height, source.width))
        super().__init__(weight.shape[0], *sides, max(1, source.side // stride))
        self.source, self.weight, self.bias, self.stride, self.groups = source, weight, bias, stride, groups

    def window(self, box: Box) -> Tensor:
        grown = Box(*self._needed(*box.rows), *self._needed(*box.columns))
        return F.conv2d(self.source.window(grown), self.weight, self.bias, self.stride, groups=self.groups)

    def _needed(self, start: int, stop: int) -> tuple[int, int]:
        return start * self.stride, (stop - 1) * self.stride + self.weight.shape[2]


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
        _check_space(scratch, self.line * self.height * self.width)
        for box in source.boxes():
            values = source.window(box)
            self.sums.add(values)
            self._write(box, values)
            self.device = values.device

    def window(self, box: Box) -> Tensor:
        values = np.empty((box.bottom - box.top, box.right - box.left, self.channels), np.float32)
        for row, line in zip(range(*box.rows), values, strict=True):
            self._seek(row, box.left)
            self.file.readinto(line.reshape(-1).view(np.uint8))
        return torch.from_numpy(values).to(self.device).permute(2, 0, 1).contiguous()[None]

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


def _check_space(scratch: Path | None, needed: int) -> None:
    free = shutil.disk_usage(scratch or tempfile.gettempdir()).free
    if free < needed:
        raise OSError(f"{needed / 1e9:.1f} GB more are needed and {free / 1e9:.1f} GB are free")


def _exact(generator: nn.Module, picture: Stage, tiling: Tiling) -> Iterator[tuple[Box, Tensor]]:
    picture.side = max(tiling.side // generator.multiple, 1) * generator.multiple
    try:
        result = _through(generator, picture, tiling.scratch)
        for box in result.boxes():
            yield box, result.window(box)
    except OSError as error:
        folder = tiling.scratch or tempfile.gettempdir()
        raise TilingError(
            f"scratch files in {folder}: {error.strerror or error}; name a folder with more space, "
            "or take statistics from a thumbnail"
        ) from None


def _through(module: nn.Module, x: Stage, scratch: Path | None, keep: bool = False) -> Stage:
    """The stage behind a module; `keep` stores the results of convolutions, so that none is computed twice."""
    if isinstance(module, ResnetGenerator):
        y = _through(module.model, x, scratch)
        return Combined(x, y, lambda a, b: (a + b).clamp(-1, 1), y.channels) if module.skip else y
    if isinstance(module, UnetGenerator):
        return _through(module.model.model, x, scratch, keep=True)
    if isinstance(module, nn.Sequential):
        for layer in module:
            x = _through(layer, x, scratch, keep)
        return x
    if isinstance(module, ResnetBlock):
        # At a quarter of the sides lies nearly all the work: here each convolution is computed only once.
        x = x if isinstance(x, Stored) else Stored(x, scratch)
        return Stored(Combined(x, _through(module.conv_block, x, scratch, True), torch.add, x.channels), scratch)
    if isinstance(module, UnetBlock):
        shortcut = inner = _through(module.model[0], x, scratch)
        for layer in list(module.model)[1:]:
            inner = _through(layer, inner, scratch, keep)
        return Combined(shortcut, inner, lambda a, b: torch.cat([a, b], 1), shortcut.channels + inner.channels)
    if isinstance(module, SHARED_NORMS):
        return Pointwise(x, fixed_norm(module, *x.moments().mean_and_variance(_groups(module, x.channels))))
    if isinstance(module, POINTWISE):
        return Pointwise(x, module)
    y = _convolution(module, x)
    return Stored(y, scratch) if keep and isinstance(module, nn.Conv2d | nn.ConvTranspose2d) else y


def _convolution(module: nn.Module, x: Stage) -> Stage:
    """The stage behind a layer that looks around itself."""
    if isinstance(module, nn.Conv2d):
        size = module.padding[0]
        x = Padded(x, (size, size), (size, size), "zero") if size else x
        return Convolved(x, module.weight, module.bias, module.stride[0], module.groups)
    if isinstance(module, nn.ConvTranspose2d):
        return Transposed(x, module.weight, module.bias, module.padding[0], (x.height * 2, x.width * 2))
    if isinstance(module, nn.ReflectionPad2d | nn.ReplicationPad2d | nn.ZeroPad2d):
        mode = {nn.ReflectionPad2d: "reflect", nn.ReplicationPad2d: "replicate", nn.ZeroPad2d: "zero"}[type(module)]
        left, right, top, bottom = module.padding
        return Padded(x, (top, bottom), (left, right), mode)
    if isinstance(module, nn.Upsample):
        return Doubled(x)
    if isinstance(module, BlurDown):
        return Convolved(Padded(x, (1, 1), (1, 1), "reflect"), module.filt, None, stride=2, groups=x.channels)
    if isinstance(module, BlurUp):
        wide = Padded(x, (1, 1), (1, 1), "replicate")
        return Transposed(wide, module.filt, None, 3, (x.height * 2, x.width * 2), groups=x.channels)
    raise TilingError(f"exact tiles do not know the layer {type(module).__name__}; take statistics from a thumbnail")


def _groups(norm: nn.Module, channels: int) -> int:
    return norm.num_groups if isinstance(norm, nn.GroupNorm) else channels


class FixedNorm(nn.Module):
    """A norm layer whose statistics are given, (1, channels, 1, 1) each."""

    def __init__(self, mean: Tensor, factor: Tensor, bias: Tensor):
        super().__init__()
        self.register_buffer("mean", mean.float())
        self.register_buffer("factor", factor.float())
        self.register_buffer("bias", bias.float())

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) * self.factor + self.bias


def fixed_norm(norm: nn.Module, mean: Tensor, variance: Tensor) -> FixedNorm:
    """What a norm layer does at these statistics."""
    factor = (variance + norm.eps).rsqrt()
    if not norm.affine:
        return FixedNorm(mean, factor, torch.zeros_like(mean))
    weight, bias = (value.view(1, -1, 1, 1).double() for value in (norm.weight, norm.bias))
    return FixedNorm(mean, factor * weight, bias)


# ---- thumbnail: overlapping tiles through a network with fixed statistics


def _blended(generator: nn.Module, picture: Padded, tiling: Tiling) -> Iterator[tuple[Box, Tensor]]:
    """Bands of tiles from top to bottom, each band as wide as the picture."""
    fixed = with_statistics_of(generator, _thumbnail(generator, picture, tiling.thumbnail))
    multiple = generator.multiple
    side = max(tiling.side // multiple, 2) * multiple
    overlap = min(tiling.overlap // multiple * multiple, side - multiple)
    rows, columns = (_spans(length, side, overlap) for length in (picture.height, picture.width))

    def band(top: int, bottom: int) -> Tensor:
        tiles = ((span, fixed(picture.window(Box(top, bottom, *span)))) for span in columns)
        return torch.cat([part for _, part in _faded(tiles, axis=3)], dim=3)

    for (top, bottom), values in _faded(((span, band(*span)) for span in rows), axis=2):
        yield Box(top, bottom, 0, picture.width), values


def with_statistics_of(generator: nn.Module, images: Tensor) -> nn.Module:
    """A copy of the generator whose norm layers keep the statistics that they have on `images`."""
    fixed = copy.deepcopy(generator)
    norms = {name: layer for name, layer in fixed.named_modules() if isinstance(layer, SHARED_NORMS)}
    moments = {name: Moments() for name in norms}
    for name, norm in norms.items():
        norm.register_forward_pre_hook(lambda _, inputs, name=name: moments[name].add(inputs[0]))
    fixed(images)
    for name, norm in norms.items():
        parent, _, last = name.rpartition(".")
        statistics = moments[name].mean_and_variance(_groups(norm, len(moments[name].sum)))
        setattr(fixed.get_submodule(parent), last, fixed_norm(norm, *statistics))
    return fixed


def _thumbnail(generator: nn.Module, picture: Padded, longest: int) -> Tensor:
    """The picture shrunk by averaging, read in bands, with sides that the generator takes."""
    factor = math.ceil(max(picture.height, picture.width) / longest)
    bands = []
    for top in range(0, picture.height, factor * 64):
        band = picture.window(Box(top, min(top + factor * 64, picture.height), 0, picture.width))
        bands.append(F.avg_pool2d(band, factor, ceil_mode=True))
    small = torch.cat(bands, dim=2)
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
    return (((torch.arange(length, device=device) + 0.5) / max(length, 1)) * 2 - 0.5).clamp(0, 1)
