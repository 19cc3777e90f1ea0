"""Masks: beside a picture, one that is white where it is to be translated and black where it is to stay as it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cyclegan.config import ConfigError, Data
from cyclegan.data.folders import find_folder
from cyclegan.data.images import ImageError, find_images, read_image


def find_masks(data: Data, domain: str, pictures: list[Path], split: str = "train") -> dict[Path, Path]:
    """The mask of each picture of a split of a domain: of the same name below the mask folder, whatever the suffix.

    Empty if the domain has no mask folder for that split. Raises ConfigError and FileNotFoundError.
    """
    option = "mask" if split == "train" else "test_mask"
    folder = getattr(getattr(data, domain), option)
    if folder is None:
        return {}
    try:
        return pair_masks(pictures, find_folder(data, split, domain), folder)
    except (FileNotFoundError, ImageError) as error:
        raise ConfigError(f"data.{domain}.{option}: {error}") from None


def pair_masks(pictures: list[Path], root: Path, masks: Path) -> dict[Path, Path]:
    """By picture below `root`, the mask of the same name below `masks`. Raises ImageError if one has none, or two."""
    known = masks_by_name(masks)
    found = {path: known.get(path.relative_to(root).with_suffix("")) for path in pictures}
    alone = [path for path, mask in found.items() if mask is None]
    if alone:
        name = alone[0].relative_to(root).with_suffix(".png")
        raise ImageError(
            f"{masks} has no mask for {len(alone)} of {len(found)} pictures; {alone[0]} needs {name} there"
        )
    return found


def masks_by_name(folder: Path) -> dict[Path, Path]:
    """Those below a folder by their names there, without suffixes. Raises ImageError if two have the same."""
    known: dict[Path, Path] = {}
    for path in find_images(folder):
        other = known.setdefault(path.relative_to(folder).with_suffix(""), path)
        if other != path:
            raise ImageError(f"{other} and {path} are masks of one name: take one of them away")
    return known


def read_mask(path: Path, size: tuple[int, int]) -> np.ndarray:
    """(height, width) uint8, 255 where to translate. Raises ImageError if it has not its picture's size."""
    pixels = read_image(path, channels=1, background="black")[..., 0]
    check_size(path, pixels.shape, size)
    return pixels if pixels.dtype == np.uint8 else np.rint(pixels * 255).astype(np.uint8)


def check_size(path: Path, mask: tuple[int, int], picture: tuple[int, int]) -> None:
    """Raises ImageError unless a mask has its picture's (height, width)."""
    if mask != picture:
        raise ImageError(
            f"mask {path} is {mask[1]}x{mask[0]}, its picture {picture[1]}x{picture[0]} (width x height): "
            "they must be of one size"
        )


def mask_tensor(mask: np.ndarray) -> Tensor:
    """(1, height, width) in [0, 1], of (height, width) uint8."""
    return torch.from_numpy(np.array(mask, dtype=np.float32)[None] / 255)


def resized_mask(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """To (height, width), with soft edges."""
    if mask.shape == size:
        return mask
    return np.asarray(Image.fromarray(mask).resize(size[::-1], Image.Resampling.BILINEAR))
