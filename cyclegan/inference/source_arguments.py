"""How every command is told which generator: SOURCE and what belongs to it, and the style of those that take one."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from cyclegan.data.images import read_image, to_tensor
from cyclegan.inference.generator_file import DIRECTIONS, GeneratorFileError, load_generator
from cyclegan.networks import GENERATORS
from cyclegan.networks.pretrained import sha256_of
from cyclegan.networks.styled import StyledGenerator


def add_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source", metavar="SOURCE", help="a run's folder, a generator (*.safetensors), or a reference's *_net_G*.pth"
    )
    parser.add_argument("--direction", choices=DIRECTIONS, help="where SOURCE has both")
    parser.add_argument(
        "--architecture",
        action="append",
        type=_setting,
        default=[],
        metavar="KEY=VALUE",
        help="what a *.pth cannot tell: padding=zero (else reflect), skip=true (false), dropout=0.5 (of a U-Net, 0); "
        "may be given several times",
    )
    style = parser.add_argument_group("generators of content and style")
    style.add_argument("--style", type=Path, nargs="+", default=[], help="pictures of the style (that of all in B)")
    style.add_argument("--style-weights", type=float, nargs="+", help="one a picture (the same for all)")
    style.add_argument("--strength", type=float, default=1.0, help="0: the content as it is decoded, 1: all (1)")


def load_source(options: argparse.Namespace) -> nn.Module:
    """Raises GeneratorFileError and ImageError."""
    generator = load_generator(options.source, options.direction, architecture=dict(options.architecture))
    if options.style or options.style_weights or options.strength != 1:
        take_style(generator, options.style, options.style_weights, options.strength)
    return generator


def take_style(
    generator: nn.Module, pictures: Sequence[Path], weights: Sequence[float] | None = None, strength: float = 1.0
) -> None:
    """From now on it translates into the style of these pictures, which becomes a part of its identity.

    Raises GeneratorFileError for generators without and for wrong weights, ImageError.
    """
    if not isinstance(generator, StyledGenerator):
        able = ", ".join(name for name, kind in GENERATORS.items() if issubclass(kind, StyledGenerator))
        raise GeneratorFileError(f"--style: this generator has one of its own; only those of {able} take any")
    try:
        generator.take_style([to_tensor(read_image(path))[None] for path in pictures], weights, strength)
    except ValueError as error:
        raise GeneratorFileError(f"--style: {error}") from None
    style = {"pictures": [sha256_of(path) for path in pictures], "weights": weights, "strength": strength}
    generator.about = {**generator.about, "style": style}


def _setting(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return key, _plain(value)


def _plain(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
