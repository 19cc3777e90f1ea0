"""How every command is told which generator: SOURCE, --direction and --architecture."""

from __future__ import annotations

import argparse
from typing import Any

from torch import nn

from cyclegan.inference.generator_file import DIRECTIONS, load_generator


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


def load_source(options: argparse.Namespace) -> nn.Module:
    """Raises GeneratorFileError."""
    return load_generator(options.source, options.direction, architecture=dict(options.architecture))


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
