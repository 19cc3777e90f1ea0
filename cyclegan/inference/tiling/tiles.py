"""Pictures of any size in bounded memory, without seams: all tiles share the statistics of the norm layers.

Tiles that each had their own InstanceNorm statistics would differ by more than blending can hide. So either (exact)
the network is computed layer by layer, or (thumbnail) the statistics come from the shrunk picture, and overlapping
tiles are blended.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from cyclegan.data.images import ImageError, to_bytes
from cyclegan.inference.tiling.blended_tiles import blended
from cyclegan.inference.tiling.exact_tiles import TilingError, exact
from cyclegan.inference.tiling.scratch import release
from cyclegan.inference.tiling.stages import Padded
from cyclegan.inference.translate import padded_sides
from cyclegan.networks.ugatit import UgatitGenerator

__all__ = ["Tiling", "TilingError", "to_pixels", "translate_tiled"]


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
    """(height, width, channels), uint8 or float32 in [0, 1] -> the same with the generator's channels, uint8 or uint16.

    Beside the picture and the result it holds a few windows of one tile, whatever the size of the picture (thumbnail:
    a band of tiles).

    Args:
        generator: in eval mode, on `device`
        pixels: may be a numpy.memmap, of which only windows are read
        tiling: how to cut
        device: where the windows are computed
        out: where the result goes, a numpy.memmap for example; uint8, uint16 or float32

    Raises TilingError for networks that it cannot cut and for a scratch folder without space.
    """
    if isinstance(generator, UgatitGenerator):
        raise TilingError(
            "ugatit looks at all of a picture at once, so none can be cut: --tiles never, or a smaller one"
        )
    picture = Padded.picture(pixels, padded_sides(generator, *pixels.shape[:2]), torch.device(device))
    if tiling.mode == "exact":
        windows = exact(generator, picture, tiling.side, tiling.scratch)
    else:
        windows = blended(generator, picture, tiling.side, tiling.overlap, tiling.thumbnail)
    for box, values in windows:
        if out is None:
            dtype = np.uint8 if pixels.dtype == np.uint8 else np.uint16
            out = np.empty((*pixels.shape[:2], values.shape[1]), dtype)
        part = out[box.top : box.bottom, box.left : box.right]
        values = values[0, :, : part.shape[0], : part.shape[1]].float().clamp(-1, 1).cpu()
        part[...] = to_pixels(values, out.dtype)
        release(out)
    return out


def to_pixels(image: Tensor, dtype: np.dtype | type) -> np.ndarray:
    """(channels, height, width) in [-1, 1] -> (height, width, channels): uint8, uint16, or float32 in [0, 1].

    Raises ImageError for NaN, which would become black.
    """
    if image.isnan().any():
        raise ImageError("the generator gives NaN: its weights are damaged, or fp16 is too narrow (--precision fp32)")
    if dtype == np.uint8:
        return np.ascontiguousarray(to_bytes(image).permute(1, 2, 0).numpy())
    pixels = np.ascontiguousarray(((image + 1) / 2).permute(1, 2, 0).numpy())
    return np.rint(pixels * 65535).astype(np.uint16) if dtype == np.uint16 else pixels
