"""One generator on one device, ready for pictures of any size."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from cyclegan.data.images import to_tensor
from cyclegan.data.masks import read_mask
from cyclegan.devices import (
    DeviceError,
    has_fast_bf16,
    has_fast_winograd,
    least_winograd_places,
    usable_device,
    whole_float32,
)
from cyclegan.heap import give_back_freed_memory
from cyclegan.inference.deployment.exported import ExportedGenerator
from cyclegan.inference.picture_files import Picture
from cyclegan.inference.styling import Styling
from cyclegan.inference.tiling.scratch import check_folder
from cyclegan.inference.tiling.tiles import Tiling, TilingError, to_pixels, translate_tiled
from cyclegan.inference.translate import translate_tensor
from cyclegan.networks.winograd import use_winograd

Precision = Literal["auto", "fp32", "bf16", "fp16"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Translator:
    """Pictures in, pictures of the same size out.

    Args:
        generator: from `load_generator`; it is copied, not changed
        device: where to compute
        precision: of the network; auto is bf16 where the device has instructions for it, else fp32. Pictures with
            more than 8 bits a channel and exact tiles are always computed in fp32
        tiling: how pictures too large for one go are cut
        styling: what depends on each picture, of generators of content and style

    Raises DeviceError, and ScratchError for a folder that cannot be written to.
    """

    def __init__(
        self,
        generator: nn.Module,
        device: torch.device | str = "cpu",
        precision: Precision = "auto",
        tiling: Tiling | None = None,
        styling: Styling | None = None,
    ):
        self.device, self.tiling, self.styling = usable_device(device), tiling or Tiling(), styling
        if self.tiling.scratch:
            check_folder(self.tiling.scratch)
        self.precision = best_precision(self.device) if precision == "auto" else precision
        if self.precision not in DTYPES:
            raise DeviceError(f"no precision {precision!r}; there are auto, {', '.join(DTYPES)}")
        if self.precision == "fp16" and self.device.type == "cpu":
            raise DeviceError("precision fp16: CPUs compute it slowly or not at all; use bf16 or fp32")
        about = getattr(generator, "about", {})
        self.channels = about.get("input", {}).get("channels", 3)
        self.background = about.get("input", {}).get("background", "white")
        self.size: tuple[int, int] | None = None  # of the last pictures
        multiplies_less = has_fast_winograd(self.device)
        exact_layout = torch.channels_last if multiplies_less else torch.contiguous_format
        self.exact = copy.deepcopy(generator).to(self.device, memory_format=exact_layout).eval().requires_grad_(False)
        if multiplies_less:
            use_winograd(self.exact, least_winograd_places(self.device))
        self.fast = self.exact
        if self.precision != "fp32":
            self.fast = copy.deepcopy(self.exact).to(DTYPES[self.precision], memory_format=torch.channels_last)
        self.layouts = {self.fast: torch.channels_last, self.exact: exact_layout}

    @whole_float32()
    def __call__(self, pictures: Sequence[Picture], regions: Sequence[Sequence[Path]] = ()) -> list[Picture]:
        """Pictures of one size and depth -> their translations; `regions`: of each picture, a mask a style."""
        if pictures[0].size != self.size:
            self.size = pictures[0].size
            give_back_freed_memory()
        if self.is_large(*pictures[0].size):
            return [self.tiled(picture) for picture in pictures]
        images = torch.stack([to_tensor(picture.pixels) for picture in pictures])
        if self.styling:
            masks = [_read_regions(paths, pictures[0].size) for paths in regions] if self.styling.by_region else []
            network = self.exact if pictures[0].deep else self.fast
            results = self.styling.paint(network, images, torch.stack(masks) if masks else None)
        else:
            results = self.tensor(images, exact=pictures[0].deep)
        return [
            picture.with_pixels(to_pixels(result, picture.pixels.dtype))
            for picture, result in zip(pictures, results, strict=True)
        ]

    @whole_float32()
    def tensor(self, images: Tensor, exact: bool = False) -> Tensor:
        """(N, C, H, W) float32 in [-1, 1] -> (N, C', H, W) float32 in [-1, 1] on the CPU; `exact` forces fp32."""
        network = self.exact if exact else self.fast
        dtype = next(network.parameters()).dtype
        images = images.to(self.device, dtype, memory_format=self.layouts[network])
        return translate_tensor(network, images).cpu()

    def is_large(self, height: int, width: int) -> bool:
        return self.tiling.applies_to(height, width)

    @whole_float32()
    def tiled(self, picture: Picture, out: np.ndarray | None = None) -> Picture:
        """A large picture's translation, into `out` if there is one, see `translate_tiled`. Raises TilingError."""
        self.check_tiles(*picture.size)
        pixels = translate_tiled(self.exact, picture.pixels, self.tiling, self.device, out)
        return picture.with_pixels(pixels)

    def check_tiles(self, height: int, width: int) -> None:
        """Raises TilingError if this generator's pictures cannot be cut."""
        reason = "cannot keep colours or have regions" if self.styling else ""
        if isinstance(self.exact, ExportedGenerator):
            reason = "share statistics, which an exported graph cannot tell"
        if reason:
            raise TilingError(
                f"{width}x{height} pixels would be cut into tiles, which {reason}: --tiles never, or a smaller picture"
            )


def _read_regions(paths: Sequence[Path], size: tuple[int, int]) -> Tensor:
    """(styles, height, width) in [0, 1]."""
    return torch.stack([torch.from_numpy(read_mask(path, size) / np.float32(255)) for path in paths])


def best_precision(device: torch.device) -> Precision:
    """bf16 where it is the faster one."""
    return "bf16" if has_fast_bf16(device) else "fp32"
