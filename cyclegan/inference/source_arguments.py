"""How every command is told which generator: SOURCE and what belongs to it, and the style of those that take one."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from torch import nn

from cyclegan.inference.checkpoints.generator_file import DIRECTIONS, load_generator
from cyclegan.inference.deployment.exported import open_generator
from cyclegan.inference.styling import CHOICES as COLOURS
from cyclegan.inference.styling import Styling, styled


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


def add_style(parser: argparse.ArgumentParser) -> None:
    """What generators of content and style are to keep."""
    style = parser.add_argument_group("generators of content and style")
    style.add_argument("--style", type=Path, nargs="+", default=[], help="pictures of the style (that of all in B)")
    style.add_argument("--style-weights", type=float, nargs="+", help="one a picture (the same for all)")
    style.add_argument("--strength", type=float, help="0: the content as it is decoded, 1: all (1, or what is kept)")


def add_styling(parser: argparse.ArgumentParser) -> None:
    """What depends on the pictures that are translated."""
    style = parser.add_argument_group("generators of content and style, by picture")
    style.add_argument(
        "--keep-colours",
        choices=COLOURS,
        help="the content's; histogram: the style is given them first, luminance: only brightness is painted",
    )
    style.add_argument(
        "--region",
        type=Path,
        nargs="+",
        default=[],
        help="one a style: a mask, white where it goes, or a folder of masks",
    )


def load_source(options: argparse.Namespace) -> nn.Module:
    """For a parser with `add_source` and `add_style`. Raises GeneratorFileError and ImageError."""
    generator = load_generator(options.source, options.direction, architecture=dict(options.architecture))
    return styled(generator, options.style, options.style_weights, options.strength)[0]


def styled_source(options: argparse.Namespace) -> tuple[nn.Module, Styling | None]:
    """The same for a parser with `add_styling`, too; SOURCE may be an exported graph."""
    generator = open_generator(options.source, options.direction, dict(options.architecture))
    style = (options.style, options.style_weights, options.strength)
    return styled(generator, *style, options.keep_colours, options.region)


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
