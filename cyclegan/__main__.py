"""`cyclegan COMMAND …`, the same as `python -m cyclegan COMMAND …`: one file in commands/ for each."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
import sys

import cyclegan
from cyclegan import commands


def main() -> int:
    names = [module.name for module in pkgutil.iter_modules(commands.__path__)]
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print("usage: cyclegan COMMAND …   (cyclegan COMMAND --help tells more)\n")
        for name in names:
            print(f"  {name:<12}{importlib.import_module(f'cyclegan.commands.{name}').SUMMARY}")
        return 0
    name, arguments = sys.argv[1], sys.argv[2:]
    if name == "--version":
        print(cyclegan.__version__)
        return 0
    if name not in names:
        nearest = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {nearest[0]}? " if nearest else ""
        print(f"cyclegan: no command {name!r}; {hint}choices: {', '.join(names)}", file=sys.stderr)
        return 2
    command = importlib.import_module(f"cyclegan.commands.{name}")
    return commands.run(f"cyclegan {name}", command.main, arguments)


if __name__ == "__main__":
    sys.exit(main())
