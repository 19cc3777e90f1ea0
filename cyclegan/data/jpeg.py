"""Upright colour JPEGs, decoded faster than through Pillow to the very same pixels; all else is left to images.py."""

from __future__ import annotations

import io
import math
import re
import struct
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

FRAMES = {0xC0, 0xC1, 0xC2}  # baseline, extended and progressive
# EXIF's tag of the orientation but for one short number 1, upright, in either order of bytes; and XMP's.
TURNED = re.compile(
    rb"\x01\x12\x00(?!\x03\x00\x00\x00\x01\x00\x01)[\x01-\x0d]|"
    rb"\x12\x01(?!\x03\x00\x01\x00\x00\x00\x01\x00)[\x01-\x0d]\x00|"
    rb"""tiff:Orientation(?:="|>)[^1]""",
    re.S,
)
PIXELS = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # that may not be among pixels
MARGIN = 3  # a picture is decoded to no less than so many times the sides that are wanted


def read_jpeg(path: Path, size_for: Callable[[int, int], tuple[int, int]] | None = None) -> np.ndarray | None:
    """(height, width, 3) uint8 as of `read_image`, None if the file is anything but a plain colour JPEG, or damaged as
    Pillow refuses it. (Damage that Pillow takes, as grey or shifted blocks, passes here too.)

    Args:
        size_for: gives the sides in which a picture of (height, width) is wanted; one far larger is decoded at a half,
            a quarter or an eighth of its size, and shrunk from there differs a little from the whole one shrunk
    """
    try:
        data = path.read_bytes()
        sides = upright_colour(data)
        if sides is None:
            return None
        factor = _factor(sides, size_for(*sides)) if size_for else 1
        if factor == 1:
            sound = _ends_behind_its_pixels(data)
            return cv2.imdecode(np.frombuffer(data, np.uint8), PIXELS) if sound else None
        return _reduced(data, sides, factor)
    except (OSError, cv2.error):  # Pillow will say what is wrong
        return None


def upright_colour(data: bytes) -> tuple[int, int] | None:
    """(height, width) of a JPEG with three channels of 8 bits that is not to be turned, None of any other file."""
    place = 2 if data[:3] == b"\xff\xd8\xff" else len(data)
    while place + 10 < len(data) and data[place] == 0xFF:
        marker, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
        if marker in FRAMES:
            bits, height, width, channels = struct.unpack_from(">BHHB", data, place + 4)
            plain = (bits, channels) == (8, 3) and 0 < height * width <= (Image.MAX_IMAGE_PIXELS or math.inf)
            return (height, width) if plain else None
        if marker == 0xE1 and TURNED.search(data, place, place + 2 + length):
            return None
        place += 2 + length
    return None


def _ends_behind_its_pixels(data: bytes) -> bool:
    """Whether no other marker is among the pixels of the last scan: OpenCV only warns of one and fills up with grey."""
    marker = MARKER.search(data, data.rfind(b"\xff\xda") + 2)
    return marker is not None and marker[0] == b"\xff\xd9"


def _factor(sides: tuple[int, int], wanted: tuple[int, int]) -> int:
    enough = [min(side // (MARGIN * want) for side, want in zip(sides, wanted, strict=True)) >= f for f in (8, 4, 2)]
    return (8, 4, 2)[enough.index(True)] if any(enough) else 1


def _reduced(data: bytes, sides: tuple[int, int], factor: int) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as image:
        image.draft("RGB", (sides[1] // factor, sides[0] // factor))
        return np.array(image)
