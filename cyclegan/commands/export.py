"""`cyclegan export SOURCE --format …`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from torch import nn

from cyclegan.arguments import flag, given
from cyclegan.inference.deployment.export import SIZES, SUFFIXES, Options, export, verify, worst
from cyclegan.inference.deployment.exported import ExportError
from cyclegan.inference.deployment.hub import read_metrics, write_hub_folder
from cyclegan.inference.source_arguments import add_source, add_style, load_source

SUMMARY = "write a generator for other programs: torch.export, ONNX, TorchScript, safetensors, Hugging Face"

NOT_FOR_HUB = ("precision", "pad", "uint8", "resize", "calibration", "style_input", "verify")
FOR_HUB = ("metrics", "picture", "push")


def main(arguments: list[str]) -> int:
    """0: written (and verified); 1: it deviates too much, or could not be written."""
    parser = _parser()
    options = parser.parse_args(arguments)
    _check_format(options, parser)
    if options.style_input and options.style:
        raise ExportError("--style-input: the style comes with every picture; leave --style out, or --style-input")
    generator = load_source(options)
    output = Path(options.output or _default_output(options, generator))
    if options.format == "hub":
        metrics = read_metrics(options.metrics) if options.metrics else None
        write_hub_folder(generator, output, metrics, options.picture, options.push, options.overwrite)
        print(f"wrote {output}")
        return 0
    inside = Options(
        options.precision,
        options.pad,
        options.uint8,
        tuple(options.resize) if options.resize else None,
        options.calibration,
        options.style_input,
    )
    contract = export(generator, output, options.format, inside, options.overwrite)
    print(f"wrote {output} and {output}.json")
    return _verify(generator, output, contract, options.sizes) if options.verify else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cyclegan export", description=SUMMARY)
    add_source(parser)
    add_style(parser)
    parser.add_argument("--format", required=True, choices=[*SUFFIXES, "hub"], help="hub: a Hugging Face folder")
    parser.add_argument("-o", "--output", help="the file, or hub's folder (SOURCE/export/DIRECTION…)")
    parser.add_argument("--overwrite", action="store_true", help="replace files that no earlier export wrote")
    graph = parser.add_argument_group("in the graph (pt2, onnx, torchscript)")
    graph.add_argument("--pad", action="store_true", help="take sides of any length")
    graph.add_argument("--uint8", action="store_true", help="take and give 0 to 255 instead of -1 to 1")
    graph.add_argument("--resize", nargs=2, type=int, metavar=("H", "W"), help="squeeze every picture to this first")
    graph.add_argument("--style-input", action="store_true", help="take a style with every picture, too")
    parser.add_argument(
        "--precision", choices=["fp32", "fp16", "bf16", "int8"], default="fp32", help="of the network (%(default)s)"
    )
    parser.add_argument("--calibration", type=Path, metavar="FOLDER", help="int8: typical pictures")
    parser.add_argument("--verify", action="store_true", help="run it beside the original, fail if it deviates")
    parser.add_argument(
        "--sizes",
        type=_sizes,
        default=SIZES,
        help="that --verify tries, in batches of 1 and 3 (256x256,101x254,512x384)",
    )
    hub = parser.add_argument_group("hub")
    hub.add_argument("--metrics", metavar="FILE", help="JSON with numbers for the card")
    hub.add_argument("--picture", metavar="FILE", help="an image for the card")
    hub.add_argument("--push", metavar="USER/NAME", help="also upload to this repository")
    return parser


def _check_format(options: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Raises ExportError for options that would be ignored, and for a file that no other command would know."""
    others = NOT_FOR_HUB if options.format == "hub" else FOR_HUB
    named = given(options, parser)
    if told := ", ".join(flag(name) for name in others if name in named):
        raise ExportError(f"--format {options.format} takes no {told}; leave it out, or choose another format")
    if options.calibration and options.precision != "int8":
        raise ExportError("--calibration is for --precision int8; leave it out, or add that")
    if "sizes" in named and not options.verify:
        raise ExportError("--sizes are those that --verify tries; leave them out, or add that")
    suffix = SUFFIXES.get(options.format)
    if suffix and options.output and Path(options.output).suffix != suffix:
        raise ExportError(f"-o {options.output}: a file of --format {options.format} is known by its {suffix}")


def _sizes(text: str) -> list[tuple[int, int]]:
    sizes = [tuple(size.split("x")) for size in text.split(",")]
    if not all(len(size) == 2 and all(side.isdecimal() and int(side) for side in size) for size in sizes):
        raise argparse.ArgumentTypeError(f"{text!r} is not HEIGHTxWIDTH,HEIGHTxWIDTH,…")
    return [(int(height), int(width)) for height, width in sizes]


def _default_output(options: argparse.Namespace, generator: nn.Module) -> Path:
    source = Path(options.source)
    folder = (source if source.is_dir() else source.parent) / "export"
    name = generator.about.get("direction") or "generator"
    return folder / f"{name}{SUFFIXES.get(options.format, '')}"


def _verify(generator: nn.Module, path: Path, contract: dict, sizes: list[tuple[int, int]]) -> int:
    deviations = verify(generator, path, sizes)
    print("batch  height  width  largest deviation  mean (of a range of 2)")
    for case in deviations:
        print(f"{case.batch:5}  {case.height:6}  {case.width:5}  {case.largest:17.2e}  {case.mean:.2e}")
    found, allowed = worst(deviations, contract)
    if found <= allowed:
        return 0
    print(f"cyclegan export: {path} deviates by {found:.2e}, more than {allowed:.2e}", file=sys.stderr)
    return 1
