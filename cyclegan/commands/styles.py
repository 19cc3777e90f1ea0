"""`cyclegan styles SOURCE CONTENT… --style PICTURE… -o OUT.png`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from cyclegan.arguments import seed, whole_number
from cyclegan.devices import default_device, usable_device
from cyclegan.inference.checkpoints.generator_file import DIRECTIONS, load_generator
from cyclegan.inference.style_grid import draws, read_contents, walk
from cyclegan.inference.styling import read_style
from cyclegan.inference.work_list import WorkListError, keep_apart
from cyclegan.training.samples import draw_sheet, save_atomically

SUMMARY = "show contents on the way from style to style, or in draws around a style, as one picture"


def main(arguments: list[str]) -> int:
    """0: written; 2: wrong usage."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if len(options.style) < 2 and not options.samples:
        parser.error("--style: two pictures or more to walk between, or --samples to draw around one")
    if options.output.suffix.lower() != ".png":
        parser.error(f"-o {options.output}: name a .png")
    keep_apart([options.output], [*options.contents, *options.style])
    if options.output.is_file() and not options.overwrite:
        raise WorkListError(f"{options.output} is there already; choose another name, or --overwrite")
    generator = load_generator(options.source, options.direction, usable_device(options.device or default_device()))
    about = generator.about["input"]
    contents = read_contents(options.contents, options.size, about["channels"], about.get("background", "white"))
    captions = _captions([path.stem for path in options.style])
    styles = {name: read_style(path) for name, path in zip(captions, options.style, strict=True)}
    if options.samples:
        columns = draws(generator, contents, styles, options.samples, options.seed)
    else:
        columns = walk(generator, contents, styles, options.steps)
    save_atomically(draw_sheet([("content", contents), *columns]), options.output)
    print(f"{len(contents)} contents in {len(columns)} styles: {options.output}", file=sys.stderr)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cyclegan styles", description=SUMMARY)
    parser.add_argument("source", metavar="SOURCE", help="a run's folder, or a generator of content and style")
    parser.add_argument("contents", metavar="CONTENT", nargs="+", type=Path, help="pictures, or folders of them: rows")
    parser.add_argument("--style", type=Path, nargs="+", required=True, help="pictures of the styles")
    parser.add_argument("-o", "--output", type=Path, required=True, help="the picture to write, a .png")
    parser.add_argument("--overwrite", action="store_true", help="replace a picture that is there")
    columns = parser.add_mutually_exclusive_group()
    columns.add_argument("--steps", type=whole_number(2), default=5, help="pictures from style to style (%(default)s)")
    columns.add_argument("--samples", type=whole_number(1), help="draw so many around each style instead (variational)")
    parser.add_argument("--seed", type=seed, default=0, help="of the draws (%(default)s)")
    parser.add_argument("--size", type=whole_number(16), default=256, help="side of each in pixels (%(default)s)")
    parser.add_argument("--direction", choices=DIRECTIONS, help="where SOURCE has both")
    parser.add_argument("--device", help="e.g. cuda:0 (GPU, or else cpu)")
    return parser


def _captions(names: list[str]) -> list[str]:
    """With a number where a name comes more than once."""
    return [name if names.count(name) == 1 else f"{name} ({number})" for number, name in enumerate(names, 1)]
