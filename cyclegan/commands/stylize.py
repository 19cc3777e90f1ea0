"""`cyclegan stylize CONTENT STYLE… -o OUT`."""

from __future__ import annotations

import argparse
import contextlib
from math import nan
from pathlib import Path

from cyclegan.arguments import seed, whole_number
from cyclegan.commands import say_files, say_warnings
from cyclegan.devices import default_device, usable_device
from cyclegan.inference.files import PIXELS
from cyclegan.inference.picture_files import pixel_limit
from cyclegan.inference.work_list import keep_apart, plan
from cyclegan.networks.backbones import RANDOM
from cyclegan.neural_style.files import Wishes, read_styles, stylize_files
from cyclegan.neural_style.recipe import CHOICES, Recipe, RecipeError

SUMMARY = "paint pictures in the style of others (Gatys et al.)"
START = {"content": 0.0, "noise": 1.0}


def main(arguments: list[str]) -> int:
    """0: all painted; 1: some could not be (listed on standard error); 2: wrong usage."""
    options = _parser().parse_args(arguments)
    recipe = _recipe(options)
    jobs = plan([options.content], options.output)
    if options.overwrite:
        keep_apart((job.target for job in jobs), [*options.styles, *options.mask, *options.style_mask])
    with contextlib.ExitStack() as stack:
        stack.enter_context(pixel_limit(options.max_pixels or None))
        say_warnings("cyclegan stylize")  # until `pixel_limit` ends
        styles = read_styles(options.styles, options.style_weights, options.mask, options.style_mask)
        curve = stack.enter_context(options.log.open("a", encoding="utf-8")) if options.log else None
        wishes = Wishes(options.size or None, options.overwrite, options.every, curve, options.quality)
        painted = stylize_files(jobs, styles, recipe, wishes, usable_device(options.device or default_device()))
    say_files("stylize", "painted", painted, options.output)
    return 1 if painted.failed else 0


def _parser() -> argparse.ArgumentParser:
    usual = Recipe()
    parser = argparse.ArgumentParser(
        prog="cyclegan stylize", description=f"{SUMMARY}; docs/style-transfer.md tells what is good for what"
    )
    parser.add_argument("content", metavar="CONTENT", help="a picture, a folder of them, or a pattern")
    parser.add_argument("styles", metavar="STYLE", nargs="+", type=Path, help="a picture, or several that are blended")
    parser.add_argument("-o", "--output", required=True, help="a folder; for one picture also a file")
    parser.add_argument(
        "--size", type=whole_number(0), default=512, help="longer side in pixels (%(default)s); 0: as it is"
    )
    parser.add_argument("--style-weights", type=float, nargs="+", default=[], help="one a style (the same for all)")
    parser.add_argument("--alpha", type=float, default=usual.alpha, help="weight of the content (%(default)s)")
    parser.add_argument("--beta", type=float, default=usual.beta, help="weight of the style (%(default)s)")
    parser.add_argument("--tv", type=float, default=usual.tv, help="weight of total variation, against noise (0)")
    parser.add_argument("--colour", choices=CHOICES["colour"], default=usual.colour, help="whose (%(default)s)")
    parser.add_argument(
        "--start", type=_start, default=0.0, metavar="content|noise|SHARE", help="or so much noise, 0 to 1 (content)"
    )
    parser.add_argument("--seed", type=seed, default=usual.seed, help="of the noise (%(default)s)")
    parser.add_argument("--device", help="e.g. cuda:0 (GPU, or else cpu)")
    parser.add_argument("--overwrite", action="store_true", help="paint again what is already there")
    parser.add_argument(
        "--quality", type=whole_number(1, 100), default=95, help="of JPEG and WebP, 1 to 100 (%(default)s)"
    )
    parser.add_argument(
        "--max-pixels", type=whole_number(0), default=PIXELS, help="refuse larger pictures (%(default)s); 0 takes all"
    )

    network = parser.add_argument_group("what tells content and style")
    network.add_argument("--backbone", choices=CHOICES["backbone"], default=usual.backbone, help="(%(default)s)")
    network.add_argument("--weights", help=f"its file, else found or downloaded; {RANDOM}: none (for tests only)")
    network.add_argument("--pooling", choices=CHOICES["pooling"], default=usual.pooling, help="(%(default)s)")
    layers = {"nargs": "+", "type": _layer, "metavar": "LAYER[=WEIGHT]"}
    network.add_argument("--content-layers", **layers, help="(vgg: relu4_2)")
    network.add_argument("--style-layers", **layers, help="(vgg: relu1_1=0.2 … relu5_1=0.2)")
    network.add_argument("--kernel", choices=CHOICES["kernel"], default=usual.kernel, help="of styles (%(default)s)")
    network.add_argument("--places", type=int, default=usual.places, help="that sampled kernels draw (%(default)s)")
    network.add_argument(
        "--normalisation", choices=CHOICES["normalisation"], default=usual.normalisation, help="(%(default)s)"
    )

    where = parser.add_argument_group("where and how large")
    where.add_argument("--mask", type=Path, nargs="+", default=[], help="one a style: white where it goes")
    where.add_argument("--style-mask", type=Path, nargs="+", default=[], help="one a style: white where it is taken")
    where.add_argument("--style-scale", type=float, default=usual.style_scale, help="of styles to content (1)")
    where.add_argument("--levels", type=int, default=usual.levels, help="sizes, from coarse to fine (%(default)s)")

    way = parser.add_argument_group("the way there")
    way.add_argument("--optimizer", choices=CHOICES["optimizer"], default=usual.optimizer, help="(%(default)s)")
    way.add_argument("--steps", type=int, default=usual.steps, help="at each level (%(default)s)")
    way.add_argument("--lr", type=float, help="learning rate (lbfgs 1, adam 0.03)")
    way.add_argument("--schedule", choices=CHOICES["schedule"], default=usual.schedule, help="of it (%(default)s)")
    way.add_argument("--factor", type=float, default=usual.factor, help="of its drops (%(default)s)")
    way.add_argument("--patience", type=int, default=usual.patience, help="steps before a drop (%(default)s)")
    way.add_argument(
        "--every", type=whole_number(0), default=0, help="write the picture after so many steps, into OUT.steps/"
    )
    way.add_argument("--log", type=Path, help="add the losses of every step to this file, as JSON lines")
    return parser


def _recipe(options: argparse.Namespace) -> Recipe:
    given = {name: value for name, value in vars(options).items() if name in Recipe.__dataclass_fields__}
    for name in ("content_layers", "style_layers"):
        layers = given[name] and dict(given[name])
        if layers and len(layers) < len(given[name]):
            raise RecipeError(f"{name}: each layer once expected, found {' '.join(layer for layer, _ in given[name])}")
        if layers:  # those without a weight share what makes 1 of all
            layers = {layer: 1 / len(layers) if weight is None else weight for layer, weight in layers.items()}
        given[name] = layers
    return Recipe(**given, noise=options.start)


def _layer(text: str) -> tuple[str, float | None]:
    name, equals, weight = text.partition("=")
    try:
        return name, float(weight) if equals else None
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not LAYER or LAYER=WEIGHT") from None


def _start(text: str) -> float:
    try:
        share = START[text] if text in START else float(text)
    except ValueError:
        share = nan
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not content, noise or a number from 0 to 1")
    return share
