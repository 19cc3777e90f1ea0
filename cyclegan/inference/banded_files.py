"""Pictures decoded and encoded in bands by libvips, so that none is held whole: PNG, JPEG and TIFF.

Colours come out as Pillow gives them, because the same code (`shallow_layers`, `deep_layers`) mixes each band.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from PIL import Image

from cyclegan.data.images import ImageError, deep_layers, shallow_layers
from cyclegan.inference.exif import about, add_to_tiff, splice
from cyclegan.inference.picture_files import CLEAR_FORMATS, Picture
from cyclegan.inference.tiling.scratch import release, scratch_array

if TYPE_CHECKING:
    from pyvips import Image as Bands
ROWS = 64  # of a band
READ = {"PNG": "pngload", "JPEG": "jpegload", "MPO": "jpegload", "TIFF": "tiffload"}  # MPO: JPEG from telephones
WRITTEN = ("PNG", "JPEG", "TIFF")
LAYERS = {"1": 1, "L": 1, "I;16": 1, "I;16B": 1, "LA": 2, "P": 3, "RGB": 3, "RGBA": 4}  # of Pillow's modes, decoded
BIG = 3_500_000_000  # bytes of pixels: more, with what comes along, may not fit into a TIFF of 32-bit places
DENSITY = 72 / 25.4  # pixels a millimetre, what programs take for "not known"


def vips() -> Any:
    """pyvips, or None where it, or the library below it, is missing or too old."""
    try:
        import pyvips

        pyvips.cache_set_max(0)  # it would keep files open, and take old ones for new
        pyvips.concurrency_set(1)  # each thread has bands of its own
        logging.getLogger("pyvips").setLevel(logging.ERROR)  # what matters it raises, too
    except (ImportError, OSError, AttributeError):
        return None
    return pyvips


def is_plain(image: Image.Image) -> bool:
    """Whether Pillow's header is that of a picture which libvips decodes to the same values.

    Others are for Pillow: CMYK, odd depths and floats of TIFF, opacity that is multiplied in.
    """
    return image.format in READ and image.mode in LAYERS and (image.format != "TIFF" or _plain_tiff(image.tag_v2))


def _plain_tiff(tags: Any) -> bool:
    depths, photometric = set(tags.get(258, (1,))), tags.get(262)
    return (
        depths in ({1}, {8}, {16})
        and photometric in ((0, 1, 2, 3) if depths != {16} else (1, 2))
        and set(tags.get(339, (1,))) == {1}  # unsigned integers
        and tuple(tags.get(338, ())) in ((), (2,))  # no fifth layer, none that is multiplied in
    )


def open_banded(path: Path) -> Bands | None:
    """A picture to be read from top to bottom, once; None where that is for Pillow, errors included."""
    pyvips = vips()
    with Image.open(path) as header:
        if pyvips is None or not is_plain(header):
            return None
        clear = "transparency" in header.info  # a colour that stands for nothing, which libvips makes a layer
        try:
            options = {"access": "sequential", "fail_on": "error", "unlimited": True}
            image = pyvips.Operation.call(READ[header.format], str(path), **options)
        except (pyvips.Error, UnicodeError):  # names that are not UTF-8
            return None
        kinds = ("uchar",) if clear else ("uchar", "ushort")
        sides = {image.width, image.height} == set(header.size)  # Pillow has turned those of TIFF
        fits = sides and image.bands == LAYERS[header.mode] + clear and image.format in kinds
        return image if fits else None


def read_banded(image: Bands, path: Path, channels: int, background: str, scratch: Path | None) -> Picture:
    """As `read_picture`, with arrays that lie in scratch files. Raises ImageError and ScratchError."""
    try:
        profile, exif, orientation = about(path)
        size = (image.width, image.height) if orientation in (5, 6, 7, 8) else (image.height, image.width)
        dtype = np.uint8 if image.format == "uchar" else np.float32
        pixels = scratch_array((*size, channels), dtype, scratch)
        alpha = scratch_array(size, dtype, scratch) if image.bands in (2, 4) else None
        as_stored = _unturned(pixels, orientation)
        alpha_as_stored = None if alpha is None else _unturned(alpha, orientation)
        for rows, band in _bands(image):
            as_stored[rows], opacity = _mixed(band, channels, background)
            release(pixels)
            if alpha is not None:
                alpha_as_stored[rows] = opacity
                release(alpha)
    except vips().Error as error:
        raise ImageError(f"cannot read {path}: {_reason(error)}") from None
    return Picture(pixels, alpha, profile, exif)


def _bands(image: Bands) -> Iterator[tuple[slice, np.ndarray]]:
    """Rows and their (rows, width, layers), uint8 or uint16, from top to bottom."""
    window = vips().Region.new(image)
    dtype = np.uint8 if image.format == "uchar" else np.uint16
    for rows in rows_of(image.height):
        count = rows.stop - rows.start
        values = np.frombuffer(window.fetch(0, rows.start, image.width, count), dtype)
        yield rows, values.reshape(count, image.width, image.bands)


def rows_of(height: int) -> Iterator[slice]:
    for top in range(0, height, ROWS):
        yield slice(top, min(top + ROWS, height))


def _mixed(band: np.ndarray, channels: int, background: str) -> tuple[np.ndarray, np.ndarray | None]:
    if band.dtype == np.uint8:
        return shallow_layers(Image.fromarray(band[..., 0] if band.shape[2] == 1 else band), channels, background)
    return deep_layers(band.astype(np.float32) / 65535, channels, background)


def _unturned(upright: np.ndarray, orientation: int) -> np.ndarray:
    """The same memory seen as the file of that EXIF orientation has it."""
    if orientation in (3, 4, 7, 8):
        upright = upright[::-1]
    if orientation in (2, 3, 6, 7):
        upright = upright[:, ::-1]
    return upright.swapaxes(0, 1) if orientation in (5, 6, 7, 8) else upright


def write_banded(picture: Picture, file: BinaryIO, format: str, quality: int, scratch: Path | None) -> None:
    """As `write_picture`, of pixels with 8 or 16 bits that lie in scratch files. Raises ImageError."""
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        path = Path(folder) / "encoded"
        image = _image(picture, format)
        size = image.width * image.height * image.bands * (2 if picture.deep else 1)
        try:
            if format == "PNG":
                image.pngsave(str(path), filter="sub", keep="icc")
            elif format == "JPEG":
                image.jpegsave(str(path), Q=quality, subsample_mode="on", keep="icc")  # as Pillow
            else:
                image.tiffsave(str(path), compression="deflate", bigtiff=size > BIG)
        except vips().Error as error:
            raise ImageError(_reason(error)) from None
        with path.open("r+b") as encoded:
            if picture.exif and format == "TIFF":
                add_to_tiff(encoded, picture.exif)
                encoded.seek(0)
            elif picture.exif:
                file.writelines(splice(encoded, format, picture.exif))
            shutil.copyfileobj(encoded, file)


def _image(picture: Picture, format: str) -> Bands:
    """All layers, opacity last."""
    pyvips, deep = vips(), picture.deep
    image = _layers(picture.pixels)
    if picture.alpha is not None and format in CLEAR_FORMATS:
        alpha = _layers(picture.alpha)
        if alpha.format == "float":
            alpha = (alpha * (65535 if deep else 255)).rint().cast(image.format)
        grey = deep and image.bands == 1 and format == "TIFF"  # as `write_picture`
        image = image.bandjoin([image, image, alpha] if grey else [alpha])
    kind = ("grey16" if deep else "b-w") if image.bands < 3 else "rgb16" if deep else "srgb"
    image = image.copy(interpretation=kind, xres=DENSITY, yres=DENSITY)
    if picture.profile:
        image.set_type(pyvips.GValue.blob_type, "icc-profile-data", picture.profile)
    image.set_progress(True)
    image.signal_connect("eval", lambda *_: release(picture.pixels, picture.alpha))
    return image


def _layers(values: np.ndarray) -> Bands:
    """libvips' view of (height, width[, layers])."""
    height, width, *layers = values.shape
    kind = {"uint8": "uchar", "uint16": "ushort", "float32": "float"}[values.dtype.name]
    return vips().Image.new_from_memory(values, width, height, *(layers or [1]), kind)


def _reason(error: Exception) -> str:
    """The last line that libvips said; the first only names the operation."""
    return str(error).strip().splitlines()[-1].strip()
