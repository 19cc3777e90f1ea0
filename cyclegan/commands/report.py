"""`cyclegan report`: a run's pictures, curves, settings and remarks as one HTML file."""

from __future__ import annotations

import argparse
from pathlib import Path

SUMMARY = "one HTML file about a run: pictures over time, curves, settings"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="cyclegan report",
        description="Write one HTML file about a run, finished or not, that opens offline.",
        epilog="example: cyclegan report results/monet2photo",
    )
    parser.add_argument("run", type=Path, help="the run's folder, results/<run>")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE", help="default: report.html in the run's folder")
    options = parser.parse_args(arguments)
    if options.output and options.output.suffix.lower() not in (".html", ".htm"):
        parser.error(f"-o {options.output}: name a .html")

    from cyclegan.report import write_report

    print(write_report(options.run, options.output))
    return 0
