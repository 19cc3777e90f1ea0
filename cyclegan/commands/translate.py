"""`cyclegan translate SOURCE INPUT… -o OUT`."""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
from pathlib import Path

from cyclegan.arguments import whole_number
from cyclegan.commands import say_files, say_warnings
from cyclegan.data.images import ImageError
from cyclegan.devices import default_device
from cyclegan.inference.files import PIXELS, Report, translate_files
from cyclegan.inference.picture_files import FORMATS, Picture, pixel_limit, read_picture, write_picture
from cyclegan.inference.source_arguments import add_source, add_style, add_styling, styled_source
from cyclegan.inference.tiling.tiles import Tiling
from cyclegan.inference.translator import Translator
from cyclegan.inference.work_list import KEEP, WorkListError, check_format, keep_apart, plan, with_masks, with_regions
from cyclegan.whole_files import open_replacing

SUMMARY = "translate pictures, folders of them, or standard input"


def main(arguments: list[str]) -> int:
    """0: all translated; 1: some could not be (listed on standard error); 2: wrong usage."""
    options = _parser().parse_args(arguments)
    with pixel_limit(options.max_pixels or None):
        translators = _translators(options)
        say_warnings("cyclegan translate")  # until `pixel_limit` ends
        if "-" in (*options.inputs, options.output):
            if options.mask or options.region:
                raise WorkListError("--mask, --region: not with standard input or output")
            return _stream(translators[0], options)
        return _files(translators, options)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cyclegan translate", description=SUMMARY)
    add_source(parser)
    add_style(parser)
    add_styling(parser)
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="files, folders, patterns, or - for standard input")
    parser.add_argument(
        "-o", "--output", required=True, help="a folder; for one picture also a file, or - for standard output"
    )
    formats = sorted(suffix[1:] for suffix in FORMATS)
    parser.add_argument(
        "--format", choices=[KEEP, *formats], help="of the results (a named file's own, else png); keep: the source's"
    )
    parser.add_argument(
        "--quality", type=whole_number(1, 100), default=95, help="of JPEG and WebP, 1 to 100 (%(default)s)"
    )
    parser.add_argument(
        "--mask", type=Path, help="folder of masks named like the pictures: white is translated, black stays as it is"
    )
    parser.add_argument("--overwrite", action="store_true", help="do again, and replace, what is already there")
    parser.add_argument("--device", help="one, or several that share the files: cuda:0,cuda:1 (GPU, or else cpu)")
    parser.add_argument(
        "--precision",
        choices=["auto", "fp32", "bf16", "fp16"],
        default="auto",
        help="of the network (%(default)s: bf16 where the device is fast at it)",
    )
    parser.add_argument(
        "--batch", type=whole_number(1), help="pictures of one size computed together (1 on CPUs, else 8)"
    )
    parser.add_argument("--threads", type=whole_number(1), help="that read and write files (one a core, 8 at most)")
    parser.add_argument(
        "--max-pixels", type=whole_number(0), default=PIXELS, help="refuse larger pictures (%(default)s); 0 takes all"
    )
    tiles = parser.add_argument_group("large pictures")
    default = Tiling()
    tiles.add_argument("--tiles", choices=["exact", "thumbnail", "never"], default=default.mode, help="(%(default)s)")
    tiles.add_argument(
        "--tile-above",
        type=whole_number(0),
        default=default.above,
        help="pixels of the largest picture left whole (%(default)s)",
    )
    tiles.add_argument("--tile-side", type=whole_number(1), default=default.side, help="pixels (%(default)s)")
    tiles.add_argument(
        "--tile-overlap", type=whole_number(0), default=default.overlap, help="thumbnail: pixels (%(default)s)"
    )
    tiles.add_argument("--scratch", type=Path, help="folder for the files of exact tiles (the system's)")
    return parser


def _translators(options: argparse.Namespace) -> list[Translator]:
    generator, styling = styled_source(options)
    tiling = Tiling(options.tiles, options.tile_above, options.tile_side, options.tile_overlap, scratch=options.scratch)
    devices = (options.device or default_device()).split(",")
    return [Translator(generator, device, options.precision, tiling, styling) for device in devices]


def _stream(translator: Translator, options: argparse.Namespace) -> int:
    """One picture, from standard input or to standard output."""
    if len(options.inputs) > 1:
        raise WorkListError("one picture at a time goes through - (standard input and output)")
    suffix = Path(options.output).suffix.lower() if options.output != "-" and not options.format else ""
    suffix = suffix or f".{options.format or 'png'}"
    if suffix not in FORMATS:
        raise WorkListError(f"{options.output}: name a picture file, or - and --format")
    check_format(Path(options.output), options.format)
    keep_apart([Path(options.output)], options.style)
    if Path(options.output).is_file() and not options.overwrite:
        say_files("translate", "translated", Report(skipped=[Path(options.output)]), options.output)
        return 0
    picture = _standard_input(translator) if options.inputs == ["-"] else _picture(translator, options.inputs[0])
    buffer = io.BytesIO()
    write_picture(translator([picture])[0], buffer, FORMATS[suffix], options.quality)
    if options.output == "-":
        sys.stdout.buffer.write(buffer.getbuffer())
        sys.stdout.buffer.flush()
    else:
        with open_replacing(options.output) as file:
            file.write(buffer.getbuffer())
    return 0


def _standard_input(translator: Translator) -> Picture:
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "picture"
        if not copy.write_bytes(sys.stdin.buffer.read()):
            raise ImageError("standard input is empty; a picture expected")
        try:
            return _picture(translator, copy)
        except ImageError as error:
            raise ImageError(str(error).replace(str(copy), "standard input")) from None


def _picture(translator: Translator, path: str | Path) -> Picture:
    return read_picture(path, translator.channels, translator.background)


def _files(translators: list[Translator], options: argparse.Namespace) -> int:
    jobs = plan(options.inputs, options.output, options.format)
    jobs = with_masks(jobs, options.mask) if options.mask else jobs
    jobs = with_regions(jobs, options.region)
    keep_apart((job.target for job in jobs), [*options.style, *options.region, *filter(None, [options.mask])])
    report = translate_files(
        translators,
        jobs,
        batch=options.batch,
        quality=options.quality,
        overwrite=options.overwrite,
        threads=options.threads,
        progress=sys.stderr.isatty(),
    )
    say_files("translate", "translated", report, options.output)
    return 1 if report.failed else 0
