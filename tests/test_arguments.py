"""Numbers on command lines: what is taken, and that a refusal names the bounds."""

from __future__ import annotations

import argparse

import pytest

from cyclegan.arguments import number_between, seed


@pytest.mark.parametrize(("text", "value"), [("0.95", 0.95), ("1e-3", 0.001), (" .5", 0.5)])
def test_numbers_between_the_bounds_are_taken(text: str, value: float):
    assert number_between(0, 1)(text) == value


@pytest.mark.parametrize("text", ["0", "3600", "-1", "nan", "inf", "four", ""])
def test_others_are_refused_and_the_bounds_told(text: str):
    with pytest.raises(argparse.ArgumentTypeError) as error:
        number_between(0, 3600)(text)
    assert str(error.value) == f"expected a number above 0 and below 3600, got {text!r}"


def test_a_seed_has_32_bits():
    assert seed("4294967295") == 2**32 - 1
    for text in ("4294967296", "99999999999999999999999", "-1", "1.5"):
        with pytest.raises(argparse.ArgumentTypeError, match="expected a whole number from 0 to 4294967295, got"):
            seed(text)
