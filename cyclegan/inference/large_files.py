"""Large pictures from disk to disk, in memory that does not depend on their size: bands and scratch files."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from cyclegan.data.images import ImageError
from cyclegan.data.masks import check_size, read_mask
from cyclegan.inference.banded_files import WRITTEN, is_plain, open_banded, read_banded, rows_of, vips, write_banded
from cyclegan.inference.picture_files import CLEAR_FORMATS, DEEP_FORMATS, FORMATS, count_pixels, pasted, with_bits
from cyclegan.inference.scratch import release, scratch_array
from cyclegan.inference.tiles import translate_tiled
from cyclegan.inference.translate import translate_tensor
from cyclegan.inference.translator import Translator
from cyclegan.inference.work_list import Job
from cyclegan.whole_files import open_replacing

MANY = 50_000_000  # pixels that take a noticeable part of a machine's memory


def translate_large(translator: Translator, job: Job, quality: int) -> bool:
    """Write `job.target`, unless the picture is small or of a kind that only Pillow reads or writes: then False.

    Raises ImageError, ScratchError, and what `translate_tiled` and Job.make_folder raise.
    """
    format, scratch = FORMATS[job.target.suffix.lower()], translator.tiling.scratch
    with Image.open(job.source) as header:
        banded = translator.is_large(header.height, header.width) and format in WRITTEN and is_plain(header)
        if banded and vips() is None and header.width * header.height > MANY:
            warnings.warn(f"{job.source} is held whole in memory: pip install 'cyclegan[large]' mends it", stacklevel=2)
    image = open_banded(job.source) if banded else None
    if image is None:
        return False
    source = read_banded(image, job.source, translator.channels, translator.background, scratch)
    bits = 16 if source.deep and format in DEEP_FORMATS else 8
    channels, clear = _channels(translator), source.alpha is not None and format in CLEAR_FORMATS
    layers = scratch_array((*source.size, channels + clear), {8: np.uint8, 16: np.uint16}[bits], scratch)
    pixels = layers[..., :channels]
    translate_tiled(translator.exact, source.pixels, translator.tiling, translator.device, pixels)
    if job.mask:
        if source.pixels.shape != pixels.shape:
            raise ImageError(f"{job.source}: with a mask, a generator must give as many channels as it takes")
        mask = _mask(job.mask, source.size, scratch)
        for rows in rows_of(len(pixels)):
            pixels[rows] = with_bits(pasted(mask[rows], pixels[rows], source.pixels[rows]), bits)
            release(pixels, source.pixels, mask)
    for rows in rows_of(len(layers)) if clear else ():
        layers[rows, :, -1] = with_bits(source.alpha[rows], bits)
        release(layers, source.alpha)
    job.make_folder()
    try:
        with open_replacing(job.target) as file:
            write_banded(layers, source.with_pixels(pixels), file, format, quality, scratch)
    except (ImageError, OSError) as error:
        raise ImageError(f"cannot write {job.target}: {error}") from None
    return True


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
