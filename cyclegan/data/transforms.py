"""From a picture as read to the tensor a network sees: resize, crop, flip, augment."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from cyclegan.config import ConfigError, Data, Size
from cyclegan.data.cache import new_cache
from cyclegan.data.images import ImageError, read_image, to_bytes, to_planes, to_tensor
from cyclegan.data.jpeg import read_jpeg
from cyclegan.data.masks import mask_tensor, read_mask, resized_mask

if TYPE_CHECKING:
    from cyclegan.data.augment import Augmentations

SizeFor = Callable[[int, int], tuple[int, int]]  # the sides wanted of a picture with these


class Reader:
    """Reads one domain's pictures as they are; where pictures hold both domains side by side, its half of them.

    Args:
        data: the run's data section
        domain: "A" or "B"
    """

    def __init__(self, data: Data, domain: str):
        section = getattr(data, domain)
        self.channels, self.background = section.channels, section.background
        self.half = domain if data.side_by_side else None

    def __call__(self, path: Path, size_for: SizeFor | None = None) -> np.ndarray:
        """(height, width, channels) as of `read_image`, or less of a far larger picture than `size_for` asks for."""
        pixels = read_jpeg(path, None if self.half else size_for) if self.channels == 3 else None
        if pixels is None:
            pixels = read_image(path, self.channels, self.background)
        if self.half is None:
            return pixels
        height, width = pixels.shape[:2]
        if width % 2:
            raise ImageError(
                f"cannot use {path}: {width}x{height} pixels, but data.side_by_side wants A and B beside each other, "
                "equally wide"
            )
        return np.ascontiguousarray(pixels[:, : width // 2] if self.half == "A" else pixels[:, width // 2 :])


class Transform:
    """Reads one domain's pictures for training. Plain data only, so that loader workers can be spawned.

    Args:
        data: the run's data section
        domain: "A" or "B"
        multiple: what the generators ask of the sides; `none` and `scale_width` round to it
    """

    def __init__(self, data: Data, domain: str, multiple: int = 4):
        section = getattr(data, domain)
        self.read, self.cache = Reader(data, domain), None
        self.resize, self.load_size, self.crop_size = data.resize, _pair(data.load_size), _pair(data.crop_size)
        self.multiple = multiple
        self.zoom = data.zoom if data.resize == "zoom_and_crop" else None
        if self.zoom and section.mask:
            raise ConfigError(f"data.{domain}.mask: not with data.resize=zoom_and_crop")
        self.last: tuple[Path, np.ndarray] | None = None  # zoomed crops come from few large pictures, or from one
        if self.zoom and self.zoom[0] > self.zoom[1]:
            raise ConfigError(f"data.zoom: the smallest scale first, found {list(self.zoom)}")
        if data.one_size and any(side % multiple for side in self.crop_size):
            raise ConfigError(f"data.crop_size: {data.crop_size}, but this generator takes multiples of {multiple}")
        self.crop, self.flip = data.one_size, data.flip
        shape = (*self.crop_size, section.channels) if self.crop else None
        self.augment = _augmentations(f"data.{domain}.augment", section.augment, shape) if section.augment else None

    def __call__(self, path: Path, seed: int) -> Tensor:
        """(channels, height, width) as of `to_planes`; the same picture for the same path and seed, whoever calls."""
        return self.augmented(self.load(path), seed)

    def keep(self, folder: Path, domain: str, root: Path, files: list[Path]) -> None:
        """Take the pictures from a cache in `folder` from now on, made of these files below `root` if there is none."""
        names = ("resize", "load_size", "crop_size", "multiple", "zoom")
        settings = {name: getattr(self, name) for name in names} | vars(self.read)
        self.cache = new_cache(folder, domain, root, files, settings, self._load)

    def load(self, path: Path) -> np.ndarray:
        """(height, width, channels) before crop and flip, not to be written to."""
        if self.cache and path in self.cache:
            return self.cache[path]
        if not self.zoom:
            return self._load(path)
        if self.last is None or self.last[0] != path:
            self.last = path, self._load(path)
        return self.last[1]

    def _load(self, path: Path) -> np.ndarray:
        return self.read(path) if self.zoom else resized(self.read(path, self._size), self._size)

    def augmented(self, pixels: np.ndarray, seed: int) -> Tensor:
        """What `load` gave, cropped, flipped and augmented as the seed says."""
        if self.zoom:
            pixels = self._zoomed(pixels, np.random.default_rng(seed))
        return to_planes(self._augmented({"image": pixels}, seed)["image"])

    def with_mask(self, path: Path, mask: Path, seed: int) -> tuple[Tensor, Tensor]:
        """What a call gives, and the picture's mask, (1, height, width) in [0, 1], cropped and flipped alike."""
        pixels = self.read(path)
        shape = read_mask(mask, pixels.shape[:2])
        pixels = resized(pixels, self._size)
        both = self._augmented({"image": pixels, "mask": resized_mask(shape, pixels.shape[:2])}, seed)
        return to_planes(both["image"]), mask_tensor(both["mask"])

    def _augmented(self, layers: dict[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
        """A picture, and its mask if it has one, cropped, flipped and augmented alike."""
        draw = random.Random(seed)
        if self.crop:
            height, width = self.crop_size
            sides = layers["image"].shape[:2]
            top, left = (draw.randint(0, side - part) for side, part in zip(sides, self.crop_size, strict=True))
            layers = {name: layer[top : top + height, left : left + width] for name, layer in layers.items()}
        flipped = draw.random() < self.flip
        layers = {  # copies either way: a view would keep the whole picture until its batch is full
            name: cv2.flip(layer, 1).reshape(layer.shape) if flipped else layer.copy() for name, layer in layers.items()
        }
        return self.augment(layers, seed, draw) if self.augment else layers

    def _zoomed(self, pixels: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """A crop of the picture at a random scale; no more of it is resized than that."""
        box, crop = [], self.crop_size
        for side, wanted, scale in zip(pixels.shape[:2], crop, random.uniform(*self.zoom, 2), strict=True):
            part = wanted / max(wanted, round(side * scale)) * side  # in pixels of the picture
            start = random.uniform(0, side - part)
            box.append((start, start + part))
        return resized(pixels, lambda *_: crop, (box[1][0], box[0][0], box[1][1], box[0][1]))

    def _size(self, height: int, width: int) -> tuple[int, int]:
        """The sides before the crop, for a picture with these."""
        load, crop = self.load_size, self.crop_size
        if self.resize == "resize_and_crop":
            return max(load[0], crop[0]), max(load[1], crop[1])
        if self.resize == "none":
            return self._rounded(height, width)
        if self.resize == "crop":
            scale = max(1.0, crop[0] / height, crop[1] / width)  # a picture smaller than the crop grows to cover it
            return max(crop[0], round(height * scale)), max(crop[1], round(width * scale))
        if self.resize == "scale_width":
            return self._rounded(max(crop[0], round(height * load[1] / width)), load[1])
        wide = max(load[1], crop[1])
        return max(crop[0], round(height * wide / width)), wide

    def _rounded(self, height: int, width: int) -> tuple[int, int]:
        return tuple(max(self.multiple, round(side / self.multiple) * self.multiple) for side in (height, width))


class PlainTransform:
    """Reads one domain's pictures for looking at and scoring: the whole picture at its own size, or squeezed to one.

    Args:
        data: the run's data section
        domain: "A" or "B"
        size: (height, width) in pixels, or None to keep the picture's
    """

    def __init__(self, data: Data, domain: str, size: tuple[int, int] | None = None):
        self.read, self.size = Reader(data, domain), size

    def __call__(self, path: Path) -> Tensor:
        """(channels, height, width) in [-1, 1]."""
        return self.with_mask(path, None)[0]

    def with_mask(self, path: Path, mask: Path | None) -> tuple[Tensor, Tensor | None]:
        """What a call gives, and the picture's mask, (1, height, width) in [0, 1], where it has one."""
        pixels = self.read(path)
        shape = None if mask is None else read_mask(mask, pixels.shape[:2])
        pixels = resized(pixels, lambda *sides: self.size or sides)
        return to_tensor(pixels), None if shape is None else mask_tensor(resized_mask(shape, pixels.shape[:2]))


def resized(pixels: np.ndarray, size_for: SizeFor, box: tuple[float, float, float, float] | None = None) -> np.ndarray:
    """Antialiased bicubic to `size_for(height, width)`; Pillow's or torch's, because OpenCV's aliases when it shrinks.

    Of the part within `box` (left, top, right, bottom) only, where one is given.
    """
    size = size_for(*pixels.shape[:2])
    if size == pixels.shape[:2] and box is None:
        return pixels
    if pixels.dtype == np.uint8 and pixels.shape[2] == 3 and box is None:  # torch rounds as Pillow, but is far faster
        image = torch.from_numpy(pixels if pixels.flags.writeable else pixels.copy()).unsqueeze(0)
        image = image.permute(0, 3, 1, 2)  # with these strides torch takes and gives channels_last, which is faster
        return interpolate(image, size, mode="bicubic", antialias=True)[0].permute(1, 2, 0).numpy()
    # Pillow resizes 8-bit pictures with one or three channels, and floats one channel at a time.
    planes = [pixels] if pixels.dtype == np.uint8 and pixels.shape[2] == 3 else np.moveaxis(pixels, 2, 0)
    planes = [Image.fromarray(plane) for plane in planes]
    planes = [np.asarray(plane.resize(size[::-1], Image.Resampling.BICUBIC, box)) for plane in planes]
    pixels = planes[0] if planes[0].ndim == 3 else np.stack(planes, axis=2)
    return pixels if pixels.dtype == np.uint8 else pixels.clip(0, 1)


def to_picture(image: Tensor) -> Image.Image:
    """(1 or 3, height, width) in [-1, 1] -> an 8-bit picture."""
    pixels = to_bytes(image).cpu().numpy()
    return Image.fromarray(pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0)))


def _pair(size: Size) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else tuple(size)


def _augmentations(where: str, listed: list[dict], shape: tuple[int, int, int] | None) -> Augmentations:
    from cyclegan.data.augment import Augmentations  # with it comes albumentations, which most starts do without

    return Augmentations(where, listed, shape)
