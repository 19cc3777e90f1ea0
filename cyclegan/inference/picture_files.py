"""A picture with all that should survive its translation: opacity, bit depth, colour profile, EXIF."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from cyclegan.data.images import LUMA, ImageError, deep_layers, deep_pixels, is_deep, read_layers, shallow_layers
from cyclegan.inference.exif import about, add_to_tiff, exif_of, png_chunk

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".bmp": "BMP", ".ppm": "PPM"}
FORMATS |= {".tif": "TIFF", ".tiff": "TIFF", ".jpe": "JPEG", ".jfif": "JPEG"}
DEEP_FORMATS = ("PNG", "TIFF", "PPM")  # the others hold 8 bits
CLEAR_FORMATS = ("PNG", "TIFF", "WEBP")  # the others hold no opacity
LOSSY_FORMATS = ("JPEG", "WEBP")  # which have a quality


@dataclass(frozen=True)
class Picture:
    """One picture, upright.

    pixels: (height, width, 1 or 3), uint8 or float32 in [0, 1]; of results also uint16
    alpha: opacity, (height, width), uint8 or float32 in [0, 1]; None if all is opaque
    profile, exif: as the file has them, the orientation taken out
    """

    pixels: np.ndarray
    alpha: np.ndarray | None = None
    profile: bytes | None = None
    exif: bytes | None = None

    @property
    def size(self) -> tuple[int, int]:
        return self.pixels.shape[:2]

    @property
    def deep(self) -> bool:
        return self.pixels.dtype != np.uint8

    def with_pixels(self, pixels: np.ndarray) -> Picture:
        """The same picture with other pixels; the profile stays if it still describes them."""
        kind = b"RGB " if pixels.shape[2] == 3 else b"GRAY"
        fits = self.profile is not None and self.profile[16:20] == kind
        return replace(self, pixels=pixels, profile=self.profile if fits else None)


@contextmanager
def pixel_limit(most: int | None) -> Iterator[None]:
    """Inside, pictures of more pixels are refused before they are decoded; None takes all.

    The limit is Pillow's, which the whole process shares.
    """
    before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, most
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # count_pixels makes errors of them
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = before


def count_pixels(path: Path | str) -> int:
    """Pixels that a file's header promises. Raises ImageError, also above Pillow's limit (see `pixel_limit`)."""
    limit = Image.MAX_IMAGE_PIXELS
    try:
        with Image.open(path) as image:
            pixels = image.width * image.height
    except Image.DecompressionBombError:  # more than twice the limit
        raise ImageError(f"cannot use {path}: more pixels than the limit of {limit:,} (--max-pixels)") from None
    except UnidentifiedImageError:
        raise ImageError(f"cannot read {path}: not a picture of a known kind, or damaged") from None
    except Exception as error:  # as in read_layers
        raise ImageError(f"cannot read {path}: {error or type(error).__name__}") from error
    if limit and pixels > limit:
        raise ImageError(f"cannot use {path}: {pixels:,} pixels, more than the limit of {limit:,} (--max-pixels)")
    return pixels


def read_picture(path: Path | str, channels: int = 3, background: str = "white") -> Picture:
    """A file with 3 (RGB) or 1 (luma) channels; the network sees transparent parts on `background`.

    Raises ImageError.
    """
    count_pixels(path)
    pixels, alpha = read_layers(path, channels, background)
    profile, exif, _ = about(path)
    return Picture(pixels, alpha, profile, exif)


def picture_of(image: Image.Image | np.ndarray, channels: int = 3, background: str = "white") -> Picture:
    """A picture in memory: Pillow's, or an array (height, width[, 1 or 3]) of uint8, uint16 or float in [0, 1].

    Pillow's modes I and F count as its files have them: integers up to 65535, floats in [0, 1]. Raises ImageError.
    """
    if isinstance(image, Image.Image):
        if is_deep(image):
            pixels, alpha = deep_layers(deep_pixels(image, "the picture"), channels, background)
        else:
            pixels, alpha = shallow_layers(image, channels, background)
        return Picture(pixels, alpha, image.info.get("icc_profile"), exif_of(image))
    pixels = np.asarray(image)
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3):
        raise ImageError(f"an array (height, width, 1 or 3) expected, found {pixels.shape}")
    if pixels.dtype == np.uint16:
        pixels = pixels.astype(np.float32) / 65535
    elif np.issubdtype(pixels.dtype, np.floating):
        pixels = pixels.astype(np.float32)
        if not (pixels.size and np.isfinite(pixels).all() and pixels.min() >= 0 and pixels.max() <= 1):
            raise ImageError("floating-point pictures must lie in [0, 1]")
    elif pixels.dtype != np.uint8:
        raise ImageError(f"an array of uint8, uint16 or float expected, found {pixels.dtype}")
    if pixels.shape[2] < channels:
        pixels = np.repeat(pixels, channels, 2)
    elif pixels.shape[2] > channels:
        grey = (pixels @ LUMA)[..., None]
        pixels = np.rint(grey).astype(np.uint8) if pixels.dtype == np.uint8 else grey
    return Picture(pixels)


def to_pillow(picture: Picture) -> Image.Image:
    """With 8 bits, Pillow has no more for colour."""
    pixels = with_bits(picture.pixels, 8)
    image = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0])
    if picture.alpha is not None:
        image.putalpha(Image.fromarray(with_bits(picture.alpha, 8)))
    if picture.profile:
        image.info["icc_profile"] = picture.profile
    if picture.exif:
        image.info["exif"] = picture.exif
    return image


def write_picture(picture: Picture, file: BinaryIO, format: str, quality: int = 95) -> None:
    """Encode a picture as one of FORMATS; what that format cannot hold (16 bits, opacity) is left out."""
    if format not in CLEAR_FORMATS:
        picture = replace(picture, alpha=None)
    if picture.deep and format in DEEP_FORMATS:
        file.write({"PNG": _deep_png, "TIFF": _deep_tiff, "PPM": _deep_ppm}[format](picture))
        return
    about = {"icc_profile": picture.profile, "exif": picture.exif} if format not in ("BMP", "PPM") else {}
    options = {name: value for name, value in about.items() if value}
    if format in LOSSY_FORMATS:
        options |= {"quality": quality}
    if file.seekable():
        to_pillow(picture).save(file, format, **options)
        return
    buffer = io.BytesIO()  # TIFF wants to seek, standard output cannot
    to_pillow(picture).save(buffer, format, **options)
    file.write(buffer.getbuffer())


def with_bits(values: np.ndarray, bits: int) -> np.ndarray:
    """uint8, uint16 or floats in [0, 1] as 8 or 16 bits."""
    if values.dtype == np.uint8:
        return values if bits == 8 else values.astype(np.uint16) * 257
    if values.dtype == np.uint16:
        return values if bits == 16 else np.rint(values / np.float32(257)).astype(np.uint8)
    return np.rint(values * (2**bits - 1)).astype(np.uint8 if bits == 8 else np.uint16)


def pasted(mask: np.ndarray, translated: np.ndarray, own: np.ndarray) -> np.ndarray:
    """What is translated where the mask is white, a picture's own pixels where it is black.

    mask: (height, width), uint8 or floats in [0, 1]
    translated, own: (height, width, channels), each uint8, uint16 or floats in [0, 1]

    Returns uint8 if the picture's own are, else floats.
    """
    share = with_bits(mask, 8)[..., None] / np.float32(255)
    if own.dtype == np.uint8:
        return np.rint(share * translated + (1 - share) * own).astype(np.uint8)
    white = {np.dtype(np.uint8): 255, np.dtype(np.uint16): 65535}.get(translated.dtype, 1)
    return share * (translated / np.float32(white)) + (1 - share) * own


def _deep_layers(picture: Picture) -> np.ndarray:
    """(height, width, 1 to 4) uint16, opacity last."""
    layers = [picture.pixels] + ([] if picture.alpha is None else [picture.alpha[..., None]])
    return np.concatenate([with_bits(layer, 16) for layer in layers], axis=2)


def _deep_png(picture: Picture) -> bytes:
    """Written by hand, because Pillow has no 16-bit colour and OpenCV no grey with opacity, profile or EXIF."""
    pixels = _deep_layers(picture)
    height, width, channels = pixels.shape
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    lines = pixels.astype(">u2").view(np.uint8).reshape(height, -1)
    differences = lines.copy()
    differences[:, 2 * channels :] -= lines[:, : -2 * channels]  # filter 1: each byte minus the one a pixel before
    data = np.concatenate([np.ones((height, 1), np.uint8), differences], axis=1)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0))]
    if picture.profile:
        chunks.append((b"iCCP", b"profile\0\0" + zlib.compress(picture.profile)))
    if picture.exif:
        chunks.append((b"eXIf", picture.exif.removeprefix(b"Exif\0\0")))
    chunks += [(b"IDAT", zlib.compress(data.data, 6)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(name, body) for name, body in chunks)


def _deep_tiff(picture: Picture) -> bytes:
    """Written by hand for the same reasons: little-endian, deflated, one strip."""
    if picture.alpha is not None and picture.pixels.shape[2] == 1:  # nobody reads 16-bit grey with opacity
        picture = replace(picture, pixels=np.repeat(picture.pixels, 3, axis=2))
    pixels = _deep_layers(picture)
    height, width, channels = pixels.shape
    strip = zlib.compress(np.ascontiguousarray(pixels.astype("<u2")).data, 6)
    colours = picture.pixels.shape[2]
    tags: list[tuple[int, int, bytes]] = [  # number, type (3: 16 bits, 4: 32 bits, 7: bytes), values
        (256, 4, struct.pack("<I", width)),
        (257, 4, struct.pack("<I", height)),
        (258, 3, struct.pack(f"<{channels}H", *[16] * channels)),
        (259, 3, struct.pack("<H", 8)),  # deflate
        (262, 3, struct.pack("<H", 2 if colours == 3 else 1)),
        (273, 4, struct.pack("<I", 8)),  # the strip lies behind the header
        (277, 3, struct.pack("<H", channels)),
        (278, 4, struct.pack("<I", height)),
        (279, 4, struct.pack("<I", len(strip))),
    ]
    if channels > colours:
        tags.append((338, 3, struct.pack("<H", 2)))  # the extra sample is opacity
    if picture.profile:
        tags.append((34675, 7, picture.profile))
    encoded = _tiff(tags, strip + b"\0" * (len(strip) % 2))
    if not picture.exif:
        return encoded
    file = io.BytesIO(encoded)
    add_to_tiff(file, picture.exif)
    return file.getvalue()


def _tiff(tags: list[tuple[int, int, bytes]], body: bytes) -> bytes:
    directory = 8 + len(body)
    place = directory + 2 + 12 * len(tags) + 4  # of values that do not fit into an entry's four bytes
    entries, values = b"", b""
    for number, kind, value in tags:
        entries += struct.pack("<HHI", number, kind, len(value) // {3: 2, 4: 4, 7: 1}[kind])
        if len(value) <= 4:
            entries += value.ljust(4, b"\0")
        else:
            entries += struct.pack("<I", place + len(values))
            values += value + b"\0" * (len(value) % 2)
    return (
        struct.pack("<2sHI", b"II", 42, directory) + body + struct.pack("<H", len(tags)) + entries + b"\0" * 4 + values
    )


def _deep_ppm(picture: Picture) -> bytes:
    pixels = _deep_layers(picture)
    return cv2.imencode(".ppm" if pixels.shape[2] == 3 else ".pgm", pixels[..., ::-1])[1].tobytes()
