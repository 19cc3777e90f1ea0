"""Contents in many styles beside one another: the way from a style to the next, and draws around a style."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cyclegan.data.images import find_images, read_image, to_tensor
from cyclegan.inference.checkpoints.generator_file import GeneratorFileError
from cyclegan.inference.styling import check_styles, refuse_exported
from cyclegan.inference.translate import pad_for
from cyclegan.networks.styled import Code, StyledGenerator, mixed

Columns = list[tuple[str, Tensor]]  # captions, and (N, C, side, side) in [-1, 1] on the CPU


@torch.no_grad()
def walk(generator: nn.Module, contents: Tensor, styles: dict[str, Tensor], steps: int) -> Columns:
    """In `steps` from each style to the next, both counted. Raises GeneratorFileError.

    Args:
        generator: of content and style
        contents: (N, C, side, side) in [-1, 1]
        styles: pictures (1, 3, h, w) in [-1, 1] by caption, at least two
        steps: two or more; between the styles, captions are the second's share
    """
    codes = _codes(generator, styles)
    chosen = []
    for (_, before), (name, after) in pairwise(codes.items()):
        for step in range(1, steps - 1):
            share = step / (steps - 1)
            chosen.append((f"{share:.2f}", mixed([before, after], [1 - share, share])))
        chosen.append((name, after))
    return _painted(generator, contents, [next(iter(codes.items())), *chosen])


@torch.no_grad()
def draws(generator: nn.Module, contents: Tensor, styles: dict[str, Tensor], count: int, seed: int = 0) -> Columns:
    """Each style and `count` others around it, the same for all contents. Raises GeneratorFileError."""
    draw, chosen = torch.Generator().manual_seed(seed), []
    for name, code in _codes(generator, styles).items():
        try:
            drawn = generator.around(styles[name].to(generator.strength), count, draw)
        except ValueError as error:
            raise GeneratorFileError(f"--samples: {error}") from None
        chosen += [(name, code)]
        chosen += [(str(number + 1), tuple(value[number : number + 1] for value in drawn)) for number in range(count)]
    return _painted(generator, contents, chosen)


def read_contents(inputs: Sequence[Path], side: int, channels: int = 3, background: str = "white") -> Tensor:
    """Pictures, and those of folders: the middle square of each, (N, channels, side, side). Raises ImageError."""
    files = [file for given in inputs for file in (find_images(given) if given.is_dir() else [given])]
    return torch.cat([_square(to_tensor(read_image(file, channels, background))[None], side) for file in files])


def _square(picture: Tensor, side: int) -> Tensor:
    height, width = picture.shape[2:]
    least = min(height, width)
    top, left = (height - least) // 2, (width - least) // 2
    middle = picture[..., top : top + least, left : left + least]
    return F.interpolate(middle, (side, side), mode="bicubic", antialias=True).clamp(-1, 1)


def _codes(generator: nn.Module, styles: dict[str, Tensor]) -> dict[str, Code]:
    check_styles(generator, styles.values())
    refuse_exported(generator, "styles")
    return {name: generator.code(picture.to(generator.strength)) for name, picture in styles.items()}


def _painted(generator: StyledGenerator, contents: Tensor, codes: Sequence[tuple[str, Code]]) -> Columns:
    side, columns = contents.shape[2], {number: [] for number in range(len(codes))}
    for content in contents.split(1):
        features = generator.features(pad_for(generator, content.to(generator.strength)))
        for number, (_, code) in enumerate(codes):
            columns[number].append(generator.paint(features, [code])[..., :side, :side].float().cpu())
    return [(name, torch.cat(columns[number])) for number, (name, _) in enumerate(codes)]
