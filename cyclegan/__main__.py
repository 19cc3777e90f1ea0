"""`cyclegan COMMAND …`, the same as `python -m cyclegan COMMAND …`: one file in commands/ for each."""

from __future__ import annotations

import ast
import difflib
import importlib
import pkgutil
import sys
from pathlib import Path

import cyclegan
from cyclegan import commands


def main() -> int:
    names = [module.name for module in pkgutil.iter_modules(commands.__path__)]
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print("usage: cyclegan COMMAND …   (cyclegan COMMAND --help tells more)\n")
        for name in names:
            print(f"  {name:<12}{_summary(name)}")
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
    # Imported inside `run`, which answers Ctrl-C: torch takes seconds.
    return commands.run(
        f"cyclegan {name}", lambda given: importlib.import_module(f"cyclegan.commands.{name}").main(given), arguments
    )


def _summary(name: str) -> str:
    """A command's SUMMARY, read from its file: a list of commands should not wait for torch."""
    source = Path(commands.__file__).with_name(f"{name}.py").read_text(encoding="utf-8")
    assigned = (statement for statement in ast.parse(source).body if isinstance(statement, ast.Assign))
    return next(ast.literal_eval(one.value) for one in assigned if one.targets[0].id == "SUMMARY")


if __name__ == "__main__":
    sys.exit(main())
