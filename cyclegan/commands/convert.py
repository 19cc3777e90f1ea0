"""`cyclegan convert SOURCE -o OUT`."""

from __future__ import annotations

import argparse

from cyclegan.inference.checkpoints.convert import ConvertError, from_reference, is_reference, to_reference
from cyclegan.inference.source_arguments import add_source

SUMMARY = "turn runs into files of the reference implementation, and those into ours"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="cyclegan convert", description=SUMMARY)
    add_source(parser)
    parser.add_argument("-o", "--output", required=True, help="the folder to write into")
    parser.add_argument("--to", choices=["reference", "cyclegan"], help="the other one of what SOURCE is")
    parser.add_argument("--epoch", help="to the reference: its name for the files (latest, or a number); from: which")
    parser.add_argument("--overwrite", action="store_true", help="replace files that are there")
    options = parser.parse_args(arguments)
    if options.to == "cyclegan" or (options.to is None and is_reference(options.source)):
        written = from_reference(
            options.source,
            options.output,
            options.direction,
            options.epoch,
            dict(options.architecture),
            options.overwrite,
        )
    else:
        if options.direction or options.architecture:
            raise ConvertError("--direction, --architecture are for the reference's files; a run is converted whole")
        written = to_reference(options.source, options.output, options.epoch or "latest", options.overwrite)
    for path in written:
        print(f"wrote {path}")
    return 0
