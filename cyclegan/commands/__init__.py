"""The command line: one file a command, with SUMMARY and main(arguments) -> exit code."""

from __future__ import annotations

import errno
import sys
import warnings
from collections.abc import Callable
from io import TextIOWrapper
from typing import TYPE_CHECKING

from cyclegan.errors import UserError
from cyclegan.heap import keep_freed_memory

if TYPE_CHECKING:  # `cyclegan --help` should not wait for torch
    from cyclegan.inference.files import Report


def run(name: str, command: Callable[[list[str]], int], arguments: list[str]) -> int:
    """The command's exit code; an error that a user can mend is printed as one line and gives 1."""
    keep_freed_memory()
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr: names of files need not be UTF-8
    try:
        return command(arguments)
    except (UserError, OSError) as error:
        full = isinstance(error, OSError) and error.errno == errno.ENOSPC and not error.filename
        said = "the disk is full; make room and go on with the same command" if full else error
        print(f"{name}: {said}", file=sys.stderr)
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return 130
    return 1


def say_warnings(name: str) -> None:
    """From now on warnings are a line each, as errors are; `warnings.catch_warnings` puts Python's way back."""

    def say(message: Warning | str, *_: object) -> None:
        print(f"{name}: {message}", file=sys.stderr)

    warnings.showwarning = say


def say_files(name: str, verb: str, report: Report, output: str) -> None:
    """A line on what was done, and one for each file that failed, on standard error."""
    were = "was" if len(report.skipped) == 1 else "were"
    before = f", {len(report.skipped)} {were} there already (--overwrite)" if report.skipped else ""
    print(f"{len(report.done)} {verb} into {output}{before}", file=sys.stderr)
    if report.failed:
        print(f"cyclegan {name}: {len(report.failed)} failed:", file=sys.stderr)
    for source, reason in report.failed.items():
        print(f"  {reason if str(source) in reason else f'{source}: {reason}'}", file=sys.stderr)
