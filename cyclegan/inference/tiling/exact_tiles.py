"""A generator layer by layer over a picture of any size: equal to the whole picture at once, in bounded memory.

Statistics of a norm layer add up over all windows of the stage before it. What is expensive to compute twice is kept in
scratch files.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyclegan.errors import UserError
from cyclegan.inference.tiling.shared_norms import SHARED_NORMS, fixed_norm
from cyclegan.inference.tiling.stages import (
    Box,
    Combined,
    Convolved,
    Doubled,
    Padded,
    Pointwise,
    Stage,
    Stored,
    Transposed,
)
from cyclegan.networks.layers import BlurDown, BlurUp
from cyclegan.networks.resnet import ResnetBlock, ResnetGenerator
from cyclegan.networks.unet import UnetBlock, UnetGenerator

PADDINGS = {nn.ReflectionPad2d: "reflect", nn.ReplicationPad2d: "replicate", nn.ZeroPad2d: "zero"}
POINTWISE = (nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.Dropout, nn.Identity, nn.BatchNorm2d)  # in eval mode


class TilingError(UserError, ValueError):
    """A network or a picture that cannot be cut into tiles; the message says what to do."""


def exact(generator: nn.Module, picture: Stage, side: int, scratch: Path | None) -> Iterator[tuple[Box, Tensor]]:
    """Windows of the translation that fill the picture without overlap; raises TilingError."""
    picture.side = max(side // generator.multiple, 1) * generator.multiple
    try:
        result = _through(generator, picture, scratch)
        for box in result.boxes():
            yield box, result.window(box)
    except OSError as error:
        raise TilingError(
            f"scratch files in {scratch or tempfile.gettempdir()}: {error.strerror or error}; name a folder with more "
            "space, or take statistics from a thumbnail"
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
        for layer in module.model[1:]:
            inner = _through(layer, inner, scratch, keep)
        return Combined(shortcut, inner, lambda a, b: torch.cat([a, b], 1), shortcut.channels + inner.channels)
    if isinstance(module, SHARED_NORMS):
        return Pointwise(x, fixed_norm(module, x.moments()))
    if isinstance(module, POINTWISE):
        return Pointwise(x, module)
    y = _convolution(module, x)
    return Stored(y, scratch) if keep and isinstance(module, nn.Conv2d | nn.ConvTranspose2d) else y


def _convolution(module: nn.Module, x: Stage) -> Stage:
    """The stage behind a layer that looks around itself."""
    if isinstance(module, nn.Conv2d):
        if size := module.padding[0]:
            x, module = Padded(x, (size, size), (size, size), "zero"), copy.copy(module)
            module.padding = (0, 0)  # its own way to compute stays
        return Convolved(x, module, module.out_channels, module.kernel_size[0], module.stride[0])
    if isinstance(module, nn.ConvTranspose2d):
        return Transposed(x, module.weight, module.bias, module.padding[0], (x.height * 2, x.width * 2))
    if mode := next((mode for kind, mode in PADDINGS.items() if isinstance(module, kind)), None):
        left, right, top, bottom = module.padding
        return Padded(x, (top, bottom), (left, right), mode)
    if isinstance(module, nn.Upsample):
        return Doubled(x)
    if isinstance(module, BlurDown):
        blur = partial(F.conv2d, weight=module.filt, stride=2, groups=x.channels)
        return Convolved(Padded(x, (1, 1), (1, 1), "reflect"), blur, x.channels, module.filt.shape[2], stride=2)
    if isinstance(module, BlurUp):
        wide = Padded(x, (1, 1), (1, 1), "replicate")
        return Transposed(wide, module.filt, None, 3, (x.height * 2, x.width * 2), groups=x.channels)
    raise TilingError(f"exact tiles do not know the layer {type(module).__name__}; take statistics from a thumbnail")
