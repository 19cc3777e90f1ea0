"""EXIF of picture files: read without their pixels, and put into files that are already encoded."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from cyclegan.data.images import orientation_of

# EXIF tags that tell about a picture and not how its file holds it (of a TIFF, Pillow gives those too): names and
# descriptions, camera, resolution, program, time, artist, host, rating, copyright, EXIF and GPS parts, Windows' texts
KEPT_TAGS = {269, 270, 271, 272, 282, 283, 296, 305, 306, 315, 316, 18246, 33432, 34665, 34853, *range(40091, 40096)}
JPEG_HOLDS = 65533  # bytes of EXIF
PARTS = (34665, 34853)  # directories of their own: EXIF and GPS


def exif_of(image: Image.Image) -> bytes | None:
    """Without the orientation and the layout of a TIFF; None if there is none, or none that Pillow understands."""
    exif = Image.Exif()
    try:
        exif.load(image.getexif().tobytes())  # a copy, because Pillow turns a picture by what it finds in its own
        for tag in set(exif) - KEPT_TAGS:
            del exif[tag]
        return exif.tobytes() if len(exif) else None
    except Exception:  # it has many for damaged tags, which are no reason to lose the picture
        return None


def about(path: Path | str) -> tuple[bytes | None, bytes | None, int]:
    """(ICC profile, EXIF, orientation) of a file. Nothing but its head is decoded."""
    with open(path, "rb") as file, Image.open(_without_pixels(file) or file) as image:
        return image.info.get("icc_profile"), exif_of(image), orientation_of(image)


def _without_pixels(file: BinaryIO) -> BinaryIO | None:
    """A PNG of one pixel with all else that a PNG has, as Pillow looks for EXIF behind the pixels; None for others."""
    signature = file.read(8)
    if signature != b"\x89PNG\r\n\x1a\n":
        file.seek(0)
        return None
    chunks = [signature]
    while len(head := file.read(8)) == 8:
        length, name = struct.unpack(">I4s", head)
        if name in (b"IDAT", b"fdAT", b"fcTL", b"acTL"):  # the latter three: further pictures of a moving one
            file.seek(length + 4, io.SEEK_CUR)
            if name == b"IDAT" and chunks[-1][4:8] != b"IDAT":
                chunks.append(png_chunk(b"IDAT", zlib.compress(bytes(9))))
            continue
        body = file.read(length)
        file.read(4)
        if name == b"IHDR":
            body = struct.pack(">II", 1, 1) + body[8:12] + b"\0"  # not interlaced
        chunks.append(png_chunk(name, body))
    return io.BytesIO(b"".join(chunks))


def png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def splice(encoded: BinaryIO, format: str, exif: bytes) -> tuple[bytes, bytes]:
    """What begins a PNG or JPEG and the EXIF that goes behind it; `encoded` stands at the rest."""
    if format == "PNG":
        return encoded.read(33), png_chunk(b"eXIf", exif.removeprefix(b"Exif\0\0"))  # behind IHDR
    return encoded.read(2), b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif


def add_to_tiff(file: BinaryIO, exif: bytes) -> None:
    """Append a directory with the entries of the first one and those of `exif`, and make it the first.

    file: little-endian, readable and seekable
    """
    file.seek(0)
    head = file.read(16)
    big = head[2] == 43  # BigTIFF
    place, number, entry = ("<Q", "<Q", 20) if big else ("<I", "<H", 12)  # formats, and the size of an entry
    head = head if big else head[:8]
    file.seek(*struct.unpack(place, head[-struct.calcsize(place) :]))
    (count,) = struct.unpack(number, file.read(struct.calcsize(number)))
    entries = file.read(count * entry)

    known, tags = Image.Exif(), ImageFileDirectory_v2(head)
    known.load(exif)
    for tag in known:
        tags[tag] = known.get_ifd(tag) if tag in PARTS else known[tag]
    end = file.seek(0, io.SEEK_END)
    end += file.write(b"\0" * (end % 2))
    directory = tags.tobytes(end)  # its entries point behind it
    end += file.write(directory)
    (count,) = struct.unpack_from(number, directory)
    if count != len(tags):
        return  # a Pillow that does not know BigTIFF
    added = directory[struct.calcsize(number) :][: count * entry]

    merged = {part[:2]: part for all in (entries, added) for part in _cut(all, entry)}
    file.write(struct.pack(number, len(merged)))
    file.write(b"".join(sorted(merged.values(), key=lambda part: struct.unpack_from("<H", part))))
    file.write(struct.pack(place, 0))
    file.seek(len(head) - struct.calcsize(place))
    file.write(struct.pack(place, end))


def _cut(whole: bytes, size: int) -> list[bytes]:
    return [whole[i : i + size] for i in range(0, len(whole), size)]
