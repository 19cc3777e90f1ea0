"""python test.py --run results/<run>: translate and score a test split, write its gallery"""

import sys

from cyclegan.commands import run


def main(arguments: list[str]) -> int:
    from cyclegan.commands.test import main as test  # inside `run`, which answers Ctrl-C: torch takes seconds

    return test(arguments)


if __name__ == "__main__":
    sys.exit(run("test.py", main, sys.argv[1:]))
