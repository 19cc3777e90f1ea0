"""Styles of generators of content and style: one that is kept, and what depends on each content (colours, regions)."""

from __future__ import annotations

import copy
import hashlib
import typing
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from cyclegan.data.images import ImageError, read_image, to_tensor
from cyclegan.inference.checkpoints.generator_file import GeneratorFileError
from cyclegan.inference.colour import brightness_matched, luminance, recoloured, with_luminance
from cyclegan.inference.picture_files import picture_of
from cyclegan.inference.translate import pad_for, translate_tensor
from cyclegan.networks import GENERATORS
from cyclegan.networks.pretrained import sha256_of
from cyclegan.networks.styled import Code, StyledGenerator, mixed

Colours = Literal["histogram", "luminance"]
CHOICES = typing.get_args(Colours)
OPTIONS = {"weights": "--style-weights", "strength": "--strength"}  # by what take_style calls them
LARGEST = 2048 * 2048  # pixels of a style: encoders want 1.5 KiB for each, and it cannot be cut as contents are
StylePicture = str | Path | Image.Image | np.ndarray


def take_style(
    generator: nn.Module,
    pictures: StylePicture | Sequence[StylePicture],
    weights: Sequence[float] | None = None,
    strength: float = 1.0,
) -> None:
    """From now on it translates into the style of these pictures, which becomes a part of its identity.

    Args:
        generator: from `load_generator`, of content and style
        pictures: one or several: files, PIL images, arrays (height, width, 3); none leaves the kept style
        weights: one a picture; the same for all
        strength: from 0 (the content as it is decoded) to 1

    Raises GeneratorFileError for generators without and for wrong weights, ImageError.
    """
    pictures = several(pictures)
    weights, strength = _numbers(weights), float(strength)
    read = [read_style(picture) for picture in pictures]
    check_styles(generator, read)
    try:
        generator.take_style(read, weights, strength)
    except ValueError as error:
        name, _, expected = str(error).partition(": ")
        said = f"{OPTIONS[name]}: {expected}" if name in OPTIONS else f"--style: {error}"
        raise GeneratorFileError(said) from None
    style = {"pictures": [_sha256(picture) for picture in pictures], "weights": weights, "strength": strength}
    generator.about = {**getattr(generator, "about", {}), "style": style}


def check_styles(generator: nn.Module, pictures: Iterable[Tensor]) -> None:
    """Raises GeneratorFileError if the generator takes no style, or one of these pictures is too small for it."""
    if not hasattr(generator, "take_style"):
        able = ", ".join(name for name, kind in GENERATORS.items() if issubclass(kind, StyledGenerator))
        raise GeneratorFileError(f"--style: this generator has one of its own; only those of {able} take any")
    least = getattr(generator, "smallest_style", generator.smallest)
    if any(min(picture.shape[2:]) < least for picture in pictures):
        raise GeneratorFileError(f"--style: pictures with sides of at least {least} pixels expected")


def refuse_exported(generator: nn.Module, what: str) -> None:
    """Raises GeneratorFileError, in the name of what needs codes of styles."""
    if not isinstance(generator, StyledGenerator):
        raise GeneratorFileError(f"{what} needs the generator's own file (*.safetensors), not an exported one")


def read_style(picture: StylePicture) -> Tensor:
    """(1, 3, h, w) in [-1, 1], shrunk where it has more than LARGEST pixels. Raises ImageError."""
    refuse_folder(picture)
    pixels = read_image(picture) if isinstance(picture, str | Path) else picture_of(picture).pixels
    style = to_tensor(pixels)[None]
    share = (LARGEST / (style.shape[2] * style.shape[3])) ** 0.5
    if share >= 1:
        return style
    sides = [max(1, int(side * share)) for side in style.shape[2:]]
    return F.interpolate(style, sides, mode="bicubic", antialias=True).clamp(-1, 1)


def refuse_folder(picture: StylePicture) -> None:
    """Raises ImageError."""
    if isinstance(picture, str | Path) and Path(picture).is_dir():
        raise ImageError(f"{picture} is a folder: name the pictures whose style it shall be, FOLDER/*.jpg say")


@dataclass
class Styling:
    """What a generator of content and style does otherwise with each content.

    pictures: (1, 3, h, w) in [-1, 1] of the styles; with none, the kept style counts
    weights: one a picture
    colours: keep the content's. histogram: styles are given its mean and covariance first; luminance: only brightness
        is painted (both Gatys et al. 2016, arXiv 1606.05897)
    by_region: every picture has a mask of where it goes; where none is white, the content stays as it is decoded
    """

    pictures: Sequence[Tensor] = ()
    weights: Sequence[float] = ()
    colours: Colours | None = None
    by_region: bool = False
    _codes: dict[int, list[Code]] = field(default_factory=dict)

    @torch.no_grad()
    def paint(self, network: nn.Module, contents: Tensor, regions: Tensor | None = None) -> Tensor:
        """(N, 3, H, W) in [-1, 1] on the CPU -> the same; regions (N, styles, H, W) in [0, 1]."""
        masks = [None] * len(contents) if regions is None else regions.split(1)
        return torch.cat([self._paint(network, *both) for both in zip(contents.split(1), masks, strict=True)])

    def _paint(self, network: nn.Module, content: Tensor, masks: Tensor | None) -> Tensor:
        grey = self.colours == "luminance"
        given = luminance(content).expand_as(content) if grey else content
        like = next(network.parameters())
        given = given.to(like)
        if masks is None and len(self.pictures) == 1:
            made = translate_tensor(network, given, self._coloured(content)[0].to(like))
        elif masks is None and not self.pictures:
            made = translate_tensor(network, given)
        else:
            made = self._mixture(network, content, given, masks)
        made = made.float().cpu()
        return with_luminance(content, luminance(made)) if grey else made

    def _mixture(self, network: StyledGenerator, content: Tensor, given: Tensor, masks: Tensor | None) -> Tensor:
        codes = self._codes_of(network, content, given)
        features = network.features(pad_for(network, given))
        if masks is None:
            made = network.paint(features, [mixed(codes, self.weights)])
        else:
            made = network.paint(features, codes, shares_of(pad_for(network, masks), self.weights))
        return made[..., : content.shape[2], : content.shape[3]].float().clamp(-1, 1)

    def _codes_of(self, network: StyledGenerator, content: Tensor, like: Tensor) -> list[Code]:
        """Computed once where they do not depend on the content."""
        if self.colours:
            return [network.code(picture.to(like)) for picture in self._coloured(content)]
        if id(network) not in self._codes:
            self._codes[id(network)] = [network.code(picture.to(like)) for picture in self.pictures]
        return self._codes[id(network)]

    def _coloured(self, content: Tensor) -> list[Tensor]:
        if self.colours == "histogram":
            return [recoloured(picture, content) for picture in self.pictures]
        if self.colours == "luminance":
            return [brightness_matched(picture, content).expand_as(picture) for picture in self.pictures]
        return list(self.pictures)


def shares_of(masks: Tensor, weights: Sequence[float]) -> list[Tensor]:
    """(1, styles, H, W) in [0, 1] -> each style's share, (1, 1, H, W): in all as much as the whitest mask has there."""
    weighted = masks * masks.new_tensor(weights).view(1, -1, 1, 1)
    shares = weighted / weighted.sum(1, keepdim=True).clamp(min=1e-6) * masks.amax(1, keepdim=True)
    return list(shares.split(1, dim=1))


def styled(
    generator: nn.Module,
    pictures: StylePicture | Sequence[StylePicture],
    weights: Sequence[float] | None = None,
    strength: float | None = None,
    colours: Colours | None = None,
    regions: Sequence[str | Path] = (),
) -> tuple[nn.Module, Styling | None]:
    """A copy of the generator that keeps this style, and what is to be done with each content beyond that, if anything.

    Strength is 1 where it is not given, or without pictures what the generator keeps.

    Raises GeneratorFileError for what does not go together, ImageError.
    """
    pictures, weights = several(pictures), _numbers(weights)
    if pictures or weights or strength is not None:
        generator = copy.deepcopy(generator)
        take_style(generator, pictures, weights, 1.0 if strength is None else strength)
    if not colours and not regions:
        return generator, None
    if not hasattr(generator, "take_style"):
        raise GeneratorFileError("--keep-colours and --region are for generators of content and style")
    if colours == "histogram" and not pictures:
        raise GeneratorFileError("--keep-colours histogram gives a style the content's colours: name it by --style")
    if regions and len(regions) != len(pictures):
        raise GeneratorFileError(f"--region: one for each --style expected, {len(pictures)}, found {len(regions)}")
    if regions:
        refuse_exported(generator, "--region")
    if colours not in (None, *CHOICES):
        raise GeneratorFileError(f"--keep-colours: expected {' or '.join(CHOICES)}, found {colours!r}")
    generator = copy.copy(generator)  # whose description is another one
    about = getattr(generator, "about", {})
    style = {**about.get("style", {}), "colours": colours, "regions": [_region(Path(region)) for region in regions]}
    generator.about = {**about, "style": style}
    read = [read_style(picture) for picture in pictures]
    return generator, Styling(read, weights or [1.0] * len(read), colours, bool(regions))


def _region(path: Path) -> str:
    """What tells it from others: a mask's SHA-256; a folder's name, each job looks at the date of its own mask."""
    if not path.exists():
        raise GeneratorFileError(f"--region: no mask or folder of masks {path}")
    return str(path) if path.is_dir() else sha256_of(path)


def several(pictures: StylePicture | Sequence[StylePicture]) -> list[StylePicture]:
    return [pictures] if isinstance(pictures, str | Path | Image.Image | np.ndarray) else list(pictures)


def _numbers(weights: Sequence[float] | None) -> list[float] | None:
    """As JSON gives them back: tuples, and numbers of numpy, would be another style's each time."""
    return None if weights is None else [float(weight) for weight in weights]


def _sha256(picture: StylePicture) -> str:
    if isinstance(picture, str | Path):
        return sha256_of(picture)
    return hashlib.sha256(np.asarray(picture).tobytes()).hexdigest()
