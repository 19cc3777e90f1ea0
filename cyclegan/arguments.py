"""Numbers on command lines, and options as they are spelled there."""

from __future__ import annotations

import argparse
from collections.abc import Callable


def whole_number(least: int, most: int | None = None) -> Callable[[str], int]:
    """An argument's type: whole numbers from `least` up, or to `most`."""

    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < least or (most is not None and int(text) > most):
            upper = "up" if most is None else f"to {most}"
            raise argparse.ArgumentTypeError(f"expected a whole number from {least} {upper}, got {text!r}")
        return int(text)

    return number


seed = whole_number(0, 2**32 - 1)  # an argument's type, with the bounds of a config's seed


def number_between(low: float, high: float) -> Callable[[str], float]:
    """An argument's type: numbers above `low` and below `high`."""

    def number(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = low
        if not low < value < high:
            raise argparse.ArgumentTypeError(f"expected a number above {low:g} and below {high:g}, got {text!r}")
        return value

    return number


def given(options: argparse.Namespace, parser: argparse.ArgumentParser) -> list[str]:
    """The names of options that were given another value than their default."""
    return [name for name, value in vars(options).items() if value != parser.get_default(name)]


def flag(name: str) -> str:
    """An option as it is spelled on the command line."""
    return f"--{name.replace('_', '-')}"
