"""Large pictures from disk to disk, in memory that does not depend on their size: bands and scratch files."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from cyclegan.data.images import ImageError
from cyclegan.data.masks import check_size, read_mask
from cyclegan.inference.banded_files import WRITTEN, is_plain, open_banded, read_banded, rows_of, vips, write_banded
from cyclegan.inference.exif import JPEG_HOLDS
from cyclegan.inference.picture_files import DEEP_FORMATS, FORMATS, Picture, count_pixels, pasted, with_bits
from cyclegan.inference.tiling.scratch import release, scratch_array
from cyclegan.inference.translate import translate_tensor
from cyclegan.inference.translator import Translator
from cyclegan.inference.work_list import Job
from cyclegan.whole_files import open_replacing

if TYPE_CHECKING:
    from pyvips import Image as Bands
MANY = 50_000_000  # pixels that take a noticeable part of a machine's memory


def translate_large(translator: Translator, job: Job, quality: int) -> bool:
    """Write `job.target`, unless the picture is small or of a kind that only Pillow reads or writes: then False.

    Raises ImageError, ScratchError, TilingError and what Job.make_folder raises.
    """
    format, scratch = FORMATS[job.target.suffix.lower()], translator.tiling.scratch
    image = _opened(translator, job.source) if format in WRITTEN else None
    if image is None:
        return False
    source = read_banded(image, job.source, translator.channels, translator.background, scratch)
    mask = _mask(job.mask, source.size, scratch) if job.mask else None
    if source.exif and format == "JPEG" and len(source.exif) > JPEG_HOLDS:
        raise ImageError(f"cannot write {job.target}: {len(source.exif)} bytes of EXIF are more than a JPEG holds")
    job.make_folder()
    result = _translated(translator, source, mask, format)
    try:
        with open_replacing(job.target) as file:
            write_banded(result, file, format, quality, scratch)
    except (ImageError, OSError) as error:
        raise ImageError(f"cannot write {job.target}: {error}") from None
    return True


def _opened(translator: Translator, path: Path) -> Bands | None:
    with Image.open(path) as header:
        if not (translator.is_large(header.height, header.width) and is_plain(header)):
            return None
        translator.check_tiles(header.height, header.width)
        if vips() is None and header.width * header.height > MANY:
            warnings.warn(f"{path} is held whole in memory: pip install 'cyclegan[large]' mends it", stacklevel=2)
    return open_banded(path)


def _translated(translator: Translator, source: Picture, mask: np.ndarray | None, format: str) -> Picture:
    """With pixels of 8 or 16 bits in a scratch file."""
    bits = 16 if source.deep and format in DEEP_FORMATS else 8
    shape = (*source.size, _channels(translator))
    if mask is not None and source.pixels.shape != shape:
        raise ImageError("with a mask, a generator must give as many channels as it takes")
    pixels = scratch_array(shape, {8: np.uint8, 16: np.uint16}[bits], translator.tiling.scratch)
    result = translator.tiled(source, pixels)
    for rows in rows_of(len(pixels)) if mask is not None else ():
        pixels[rows] = with_bits(pasted(mask[rows], pixels[rows], source.pixels[rows]), bits)
        release(pixels, source.pixels, mask)
    return result


def _channels(translator: Translator) -> int:
    """That the generator gives."""
    smallest = torch.zeros(1, translator.channels, 1, 1, device=translator.device)
    return translate_tensor(translator.exact, smallest).shape[1]


def _mask(path: Path, size: tuple[int, int], scratch: Path | None) -> np.ndarray:
    """(height, width), uint8 or floats in [0, 1]."""
    count_pixels(path)
    image = open_banded(path)
    if image is None:
        return read_mask(path, size)
    mask = read_banded(image, path, 1, "black", scratch).pixels[..., 0]
    check_size(path, mask.shape, size)
    return mask
