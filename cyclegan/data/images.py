"""Picture files as arrays: every common kind of file, its range kept, turned the way its camera meant it."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image, ImageColor, ImageOps, UnidentifiedImageError
from torch import Tensor

from cyclegan.errors import UserError

Image.init()
# What people have pictures in and Pillow opens; without AVIF or JPEG 2000 where it was built without them.
EXTENSIONS = {
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".avif", ".jp2", ".j2k", ".tif", ".tiff"),
    *(".bmp", ".gif", ".tga", ".ppm", ".pgm", ".pbm", ".pnm"),
} & {suffix for suffix, format in Image.registered_extensions().items() if format in Image.OPEN}
ORIENTATION = 0x0112  # EXIF's
BITS, PHOTOMETRIC, PLANAR, EXTRA_SAMPLES = 258, 262, 284, 338  # TIFF's
BAND = 1024  # rows
SYSTEMS = {"lost+found", "System Volume Information", "$RECYCLE.BIN"}  # folders at a disk's root that nobody may read
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601, as Pillow's "L"


class ImageError(UserError, ValueError):
    """A picture that cannot be used; the message names the file and the reason."""


def find_images(folder: Path | str) -> list[Path]:
    """All pictures below `folder`, behind links too, sorted by their path; hidden files are left out.

    A link to a file that is not there (not fetched yet, say) counts as a picture: to read it is an error that names it.
    Raises FileNotFoundError if there is no such folder (a file is none) or no picture in it, OSError if a sub-folder
    cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        if folder.exists():
            raise FileNotFoundError(f"{folder} is a file, where a folder of pictures is expected")
        raise FileNotFoundError(f"no folder {folder}")
    images = sorted(path for path in _files_below(folder) if path.suffix.lower() in EXTENSIONS and _is_there(path))
    if not images:
        raise FileNotFoundError(f"no images in {folder} (looked for {', '.join(sorted(EXTENSIONS))}, sub-folders too)")
    return images


def _is_there(path: Path) -> bool:
    return path.is_file() or (path.is_symlink() and not path.exists())


def _files_below(folder: Path) -> Iterator[Path]:
    """Not hidden, and not in hidden folders; each folder once, however many links lead there."""
    root = folder.resolve()
    searched = {root}

    def wanted(path: Path) -> bool:
        if path.name.startswith("."):
            return False
        target = path.resolve()
        # A link into the folder leads to what is searched anyway, one to what is around it to what is not meant.
        astray = path.is_symlink() and (target.is_relative_to(root) or root.is_relative_to(target))
        if astray or target in searched:
            return False
        searched.add(target)
        return True

    def refuse(error: OSError) -> None:
        if Path(error.filename).name not in SYSTEMS:
            raise error

    for above, names, files in os.walk(folder, onerror=refuse, followlinks=True):
        names[:] = [name for name in sorted(names) if wanted(Path(above, name))]
        yield from (Path(above, file) for file in files if not file.startswith("."))


def read_image(path: Path | str, channels: int = 3, background: str = "white") -> np.ndarray:
    """One picture as (height, width, channels): uint8, or float32 in [0, 1] if the file holds more than 8 bits.

    EXIF orientation is applied, transparency composited on `background` (a colour name or #rrggbb), palettes and
    CMYK become RGB; `channels` is 3 or 1 (luma). Raises ImageError for a file that is no picture or is damaged.
    """
    return read_layers(path, channels, background)[0]


def read_layers(path: Path | str, channels: int = 3, background: str = "white") -> tuple[np.ndarray, np.ndarray | None]:
    """What `read_image` gives, and the opacity beside it: (height, width) of the same type, None if there is none."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            # As an open file: by name, Pillow maps grey TIFF into memory, and with an orientation garbles it.
            with open(path, "rb") as file, Image.open(file) as image:
                deep = _bits(image, Path(path)) > 8
                image.load()  # turns TIFF and takes its EXIF tag away; left to exif_transpose it would turn twice
                if deep:
                    return deep_layers(deep_pixels(image, path), channels, background)
                return shallow_layers(image, channels, background)
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(f"cannot read {path}: not a picture of a known kind, or damaged") from None
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        pixels = int(re.search(r"\d+", str(error))[0])
        raise ImageError(
            f"cannot use {path}: {pixels:,} pixels, more than the limit of {Image.MAX_IMAGE_PIXELS:,}; "
            "cut it into smaller pictures first (translate and stylize take larger ones by --max-pixels)"
        ) from None
    except Exception as error:  # Pillow's plugins raise OSError, SyntaxError, ValueError, struct.error and more
        raise ImageError(f"cannot read {path}: {error or type(error).__name__}") from error


def to_tensor(pixels: np.ndarray) -> Tensor:
    """(height, width, channels), uint8 or float in [0, 1] -> (channels, height, width) float32 in [-1, 1]."""
    return scaled(to_planes(pixels).contiguous())


def to_planes(pixels: np.ndarray) -> Tensor:
    """(height, width, channels) -> (channels, height, width): uint8 as it is, floats in [0, 1] to [-1, 1].

    A view, with the channels of a pixel beside each other; a copy only of what has gaps or is not to be written to.
    """
    whole = np.require(pixels.reshape(*pixels.shape[:2], -1), requirements=["C", "W"])
    planes = torch.from_numpy(whole).permute(2, 0, 1)
    return planes if planes.dtype == torch.uint8 else planes.float() / 0.5 - 1


def scaled(images: Tensor) -> Tensor:
    """uint8, of any shape, to float32 in [-1, 1]; floats are there already."""
    return images.float().div_(127.5).sub_(1) if images.dtype == torch.uint8 else images


def to_bytes(images: Tensor) -> Tensor:
    """Floats in [-1, 1] to uint8, of any shape: the one rounding on the way into an 8-bit file."""
    return images.float().clamp(-1, 1).add_(1).mul_(127.5).round_().to(torch.uint8)


def quantised(images: Tensor) -> Tensor:
    """What is left of [-1, 1] in 8-bit files."""
    return to_bytes(images).float() / 127.5 - 1


def _bits(image: Image.Image, path: Path) -> int:
    """Bits a channel in the file; Pillow shows 16-bit colour as 8-bit `RGB`, so its mode does not tell."""
    if is_deep(image):
        return 16
    if image.format == "PNG":
        with path.open("rb") as file:
            return file.read(25)[24]  # IHDR: signature 8, length 4, type 4, width 4, height 4, then the depth
    if image.format == "TIFF":
        return max(image.tag_v2.get(BITS, (8,)))
    if image.format == "PPM":
        return 16 if _ppm_white(path) > 255 else 8
    return 8


def _ppm_white(path: Path) -> int:
    """The largest value that a PGM or PPM may have, from its header; 1 of a bitmap."""
    with path.open("rb") as file:
        fields = re.sub(rb"#[^\n]*", b"", file.read(4096)).split(maxsplit=4)
    return int(fields[3]) if fields[0] in (b"P2", b"P3", b"P5", b"P6") else 1


def upright_size(path: Path) -> tuple[int, int]:
    """(width, height) of the picture that `read_image` would give, from the file's header. Raises ImageError."""
    try:
        with Image.open(path) as image:
            lies = orientation_of(image) in (5, 6, 7, 8) and image.format != "TIFF"  # whose size Pillow turns itself
            return image.size[::-1] if lies else image.size
    except Exception as error:  # as in read_layers
        raise ImageError(f"cannot read {path}: {error or type(error).__name__}") from error


def orientation_of(image: Image.Image) -> int:
    """EXIF's, 1 (upright) where there is none or none that Pillow understands."""
    try:
        return image.getexif().get(ORIENTATION, 1)
    except Exception:  # it has many for damaged tags, which are no reason to lose the picture
        return 1


def shallow_layers(image: Image.Image, channels: int, background: str) -> tuple[np.ndarray, np.ndarray | None]:
    """`read_layers` of an opened picture with 8 bits."""
    alpha = None
    if orientation_of(image) != 1:
        image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        alpha = np.asarray(image.getchannel("A"))
        canvas = Image.new("RGBA", image.size, (*ImageColor.getrgb(background)[:3], 255))
        image = Image.alpha_composite(canvas, image).convert("RGB")
    mode = "RGB" if channels == 3 else "L"
    pixels = _array(image if image.mode == mode else image.convert(mode))
    return pixels if channels == 3 else pixels[..., None], alpha


def deep_layers(pixels: np.ndarray, channels: int, background: str) -> tuple[np.ndarray, np.ndarray | None]:
    """`read_layers` of (height, width, 1 to 4) float32 in [0, 1]."""
    alpha = pixels[..., -1] if pixels.shape[2] in (2, 4) else None
    return _with_channels(_composited(pixels, background), channels), alpha


def _array(image: Image.Image) -> np.ndarray:
    """numpy's of an 8-bit picture, in bands: Pillow would hold a large one three times."""
    if image.height <= BAND:
        return np.asarray(image)
    pixels = np.empty((image.height, image.width, *([3] * (image.mode == "RGB"))), np.uint8)
    for top in range(0, image.height, BAND):
        band = image.crop((0, top, image.width, min(top + BAND, image.height)))
        pixels[top : top + BAND] = np.asarray(band)
    return pixels


def is_deep(image: Image.Image) -> bool:
    """Whether Pillow shows it with more than 8 bits: grey only."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16")


def deep_pixels(image: Image.Image, path: Path | str) -> np.ndarray:
    """(height, width, 1 to 4) float32 in [0, 1] of a file with 16 bits or floats, or a picture that `is_deep`.

    The last of two or four channels is opacity. Raises ImageError.
    """
    tags = image.tag_v2 if image.format == "TIFF" else {}
    if is_deep(image):
        pixels = np.asarray(image)[..., None]
        if pixels.dtype == np.uint16:
            bits = tags.get(BITS, (16,))[0]
            opaque = pixels != image.info["transparency"] if "transparency" in image.info else None  # of PNG
            pixels = pixels.astype(np.float32) / (2**bits - 1)
            pixels = 1 - pixels if tags.get(PHOTOMETRIC) == 0 else pixels  # white is zero
            pixels = pixels if opaque is None else np.concatenate([pixels, opaque], 2, dtype=np.float32)
        return _unit_range(_oriented(pixels, orientation_of(image)), path)
    pixels = _unit_range(_deep_colour(image, path), path)
    extra = tags.get(EXTRA_SAMPLES, (2,))[0] if pixels.shape[2] == 4 else 2
    if extra == 0:  # some other channel
        return np.ascontiguousarray(pixels[..., :3])
    if extra == 1:  # colours are multiplied by the opacity
        pixels[..., :3] = (pixels[..., :3] / np.maximum(pixels[..., 3:], 1e-6)).clip(0, 1)
    return pixels


def _unit_range(pixels: np.ndarray, path: Path | str) -> np.ndarray:
    """float32 in [0, 1]. Raises ImageError."""
    if pixels.dtype == np.uint8:
        return pixels.astype(np.float32) / 255
    if np.issubdtype(pixels.dtype, np.integer):
        if pixels.min() < 0 or pixels.max() > 65535:
            raise ImageError(f"cannot use {path}: integers from 0 to 65535 expected, found up to {pixels.max()}")
        return pixels.astype(np.float32) / 65535
    if not (np.isfinite(pixels).all() and pixels.min() >= 0 and pixels.max() <= 1):
        raise ImageError(
            f"cannot use {path}: floating-point pictures must lie in [0, 1], found {pixels.min()} to {pixels.max()}"
        )
    return pixels.astype(np.float32)


def _deep_colour(image: Image.Image, path: Path | str) -> np.ndarray:
    """Through OpenCV: of more than one channel, Pillow keeps 8 bits only."""
    with Image.open(path) as unturned:
        orientation = orientation_of(unturned)
    if image.format == "TIFF" and image.tag_v2.get(PLANAR, 1) != 1:
        raise ImageError(
            f"cannot use {path}: a TIFF of more than 8 bits with its channels one after another, which OpenCV reads "
            "wrongly; save it with them beside each other (PlanarConfiguration 1)"
        )
    if image.format == "PPM":  # at the very end of plain numbers, OpenCV wants something more to read
        pixels = cv2.imdecode(np.frombuffer(Path(path).read_bytes() + b"\n", np.uint8), cv2.IMREAD_UNCHANGED)
    else:
        pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)  # which leaves orientation alone
    if pixels is None:
        raise ImageError(f"cannot read {path}: a 16-bit {image.format} of a kind that OpenCV does not decode")
    if image.format == "PPM":  # of 10 or 12 bits, say, as they stand in the file
        pixels = pixels.astype(np.float32) / _ppm_white(Path(path))
    if pixels.ndim == 2:
        return _oriented(pixels[..., None], orientation)
    return _oriented(pixels[..., [2, 1, 0, *range(3, pixels.shape[2])]], orientation)  # BGR(A) to RGB(A)


def _oriented(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """The EXIF orientations 1 to 8 undone."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _composited(pixels: np.ndarray, background: str) -> np.ndarray:
    if pixels.shape[2] in (1, 3):
        return pixels
    colour, alpha = pixels[..., :-1], pixels[..., -1:]
    canvas = np.array(ImageColor.getrgb(background)[:3], dtype=np.float32) / 255
    if colour.shape[2] == 1:
        canvas = (canvas @ LUMA)[None]
    return colour * alpha + canvas * (1 - alpha)


def _with_channels(pixels: np.ndarray, channels: int) -> np.ndarray:
    if channels == 1 and pixels.shape[2] == 3:
        return (pixels @ LUMA)[..., None]
    if channels == 3 and pixels.shape[2] == 1:
        return np.repeat(pixels, 3, axis=2)
    return pixels
