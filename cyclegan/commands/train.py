"""`cyclegan train`, and train.py."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

SUMMARY = "train on two folders of pictures"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="train.py",
        description="Train on two folders of pictures.",
        add_help=False,
        epilog="example: train.py --config monet2photo training.epochs=50 data.root=~/pictures",
    )
    parser.add_argument("--config", help="a YAML file, or the name of one in options/")
    parser.add_argument(
        "--resume",
        default="auto",
        help="auto (default): go on from the newest intact state, or start; none: start, setting an earlier run of "
        "this name aside; or the folder of a state or a run to go on from",
    )
    parser.add_argument("--print-config", action="store_true", help="print the resolved run and stop")
    parser.add_argument("-h", "--help", action="store_true", help="this text and every option with its default")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="options in place of the file's")
    options = parser.parse_intermixed_args(arguments)
    if options.help:
        from cyclegan.describe import describe_options

        print(f"{parser.format_help()}\nOptions of a run (YAML, or section.key=value):\n{describe_options()}")
        return 0
    if not options.config:
        parser.error("--config is missing: a YAML file, or the name of one in options/ (--help lists all options)")

    from cyclegan.algorithms import complete_config
    from cyclegan.config import load_config
    from cyclegan.data.folders import find_split
    from cyclegan.training.loop import train

    config = complete_config(load_config(options.config, options.overrides))
    if options.print_config:
        print(config.to_yaml(), end="")
        return 0
    tested = find_split(config.data, "test")  # before: what is wrong there should not end what was trained
    folder = train(config, options.resume)
    if int(os.environ.get("RANK", 0)) > 0:
        return 0
    _report(folder)
    if tested:
        print(f"done; to translate and score the test split: python test.py --run {folder}", file=sys.stderr)
    else:
        print(f"done: {folder} (no test pictures: data.A.test and data.B.test would name them)", file=sys.stderr)
    return 0


def _report(folder: Path) -> None:
    from cyclegan.report import write_report
    from cyclegan.report.curves import MissingLibrary

    try:
        print(f"report: {write_report(folder)}", file=sys.stderr)
    except MissingLibrary as hint:
        print(f"no report: {hint}", file=sys.stderr)
