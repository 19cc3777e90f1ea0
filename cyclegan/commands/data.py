"""`cyclegan data fetch|list`: the published image sets."""

from __future__ import annotations

import argparse
import difflib
import re
import sys
from dataclasses import replace
from pathlib import Path

from cyclegan.data.fetch import FetchError, fetch
from cyclegan.data.published import SETS, PublishedSet
from cyclegan.data.unpack import ArchiveError

SUMMARY = "download the published image sets, or list them"


def main(arguments: list[str]) -> int:
    """0: done; 1: something could not be had; 2: wrong usage."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.action == "list":
        return _list(options.root)
    if len(options.names) > 1 and (options.given or options.sha256):
        parser.error("--from and --sha256 go with one NAME")
    try:
        return max([_fetch(wanted, options) for wanted in options.names])
    except KeyboardInterrupt:
        print("cyclegan data: stopped; the same command goes on from here", file=sys.stderr)
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cyclegan data", description=SUMMARY)
    actions = parser.add_subparsers(dest="action", required=True)
    get = actions.add_parser("fetch", help="download sets and unpack them")
    get.add_argument("names", nargs="+", type=_set, metavar="NAME", help=f"one of {', '.join(SETS)}")
    get.add_argument("--mirror", type=_web_folder, metavar="URL", help="a web folder with the archives, tried first")
    get.add_argument("--from", dest="given", type=_file, metavar="FILE", help="use this archive, not the network")
    get.add_argument("--sha256", type=_sum, help="what the archive must have, instead of the published sum")
    get.add_argument("--keep-archive", action="store_true", help="do not delete a downloaded archive after unpacking")
    show = actions.add_parser("list", help="what there is, and what is already here")
    for action in (get, show):
        action.add_argument("--root", type=Path, default=Path("datasets"), help="where sets lie (%(default)s)")
    return parser


def _set(name: str) -> PublishedSet:
    if name not in SETS:
        near = difflib.get_close_matches(name, SETS, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise argparse.ArgumentTypeError(f"no set {name!r}; {hint}There are {', '.join(SETS)}")
    return SETS[name]


def _web_folder(url: str) -> str:
    if not re.match(r"https?://[^/]", url):
        raise argparse.ArgumentTypeError(f"{url!r} does not begin with http://HOST or https://HOST")
    return url


def _file(path: str) -> Path:
    if not Path(path).is_file():
        raise argparse.ArgumentTypeError(f"no file {path}")
    return Path(path)


def _sum(text: str) -> str:
    if not re.fullmatch("[0-9a-fA-F]{64}", text):
        raise argparse.ArgumentTypeError("64 hexadecimal digits expected")
    return text


def _fetch(wanted: PublishedSet, options: argparse.Namespace) -> int:
    if options.sha256:
        wanted = replace(wanted, sha256=options.sha256, size=None)
    try:
        fetch(wanted, options.root, options.mirror, options.given, options.keep_archive)
        return 0
    except (FetchError, ArchiveError, OSError) as error:
        print(f"cyclegan data: {error}", file=sys.stderr)
        return 1


def _list(root: Path) -> int:
    for name, one in SETS.items():
        there = f"in {root / name}" if one.is_in(root / name) else "not here"
        counts = " ".join(f"{folder} {images}" for folder, images in one.counts.items())
        size = f", {one.size / 1e6:,.0f} MB to download" if one.size else ""
        print(f"{name} ({there}{size})\n    {one.about}: {counts}\n    {one.licence}")
    return 0
