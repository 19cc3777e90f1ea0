"""The command line: one file a command, with SUMMARY and main(arguments) -> exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable

from cyclegan.errors import UserError


def run(name: str, command: Callable[[list[str]], int], arguments: list[str]) -> int:
    """The command's exit code; an error that a user can mend is printed as one line and gives 1."""
    try:
        return command(arguments)
    except (UserError, OSError) as error:
        print(f"{name}: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return 130
    return 1
