"""A result on the terminal."""

from __future__ import annotations

import sys

from cyclegan.evaluation.evaluator import Evaluation, number_name
from cyclegan.evaluation.extractors import Extractor


def print_result(result: Evaluation, folders: dict[str, Evaluation], extractor: Extractor) -> None:
    """Everything about a result, its first number last, as pytorch-fid prints it."""
    print_warnings(result.warnings)
    print(f"{identity(extractor)}, {_counts(result)}")
    if folders:
        _print_folders(folders)
    last, *others = result.numbers
    for key in others:
        print(f"{_label(key)}: {result.numbers[key]}")
    _print_intervals(result, extractor)
    print(f"{_label(last)}:  {result.numbers[last]}")  # pytorch-fid's last line, two spaces and all


def _print_intervals(result: Evaluation, extractor: Extractor) -> None:
    settings = result.card["settings"]
    for key in ("fid", "kid") if settings["bootstrap"] else ():
        name, low, high = (number_name(f"{key}{end}", extractor) for end in ("", "_low", "_high"))
        if low in result.numbers:
            print(
                f"{settings['confidence']:.4g} interval of {_label(name)}: {result.numbers[low]:.6g} to "
                f"{result.numbers[high]:.6g} ({settings['bootstrap']} draws; chance, not FID's bias)"
            )


def _print_folders(folders: dict[str, Evaluation]) -> None:
    for name, part in folders.items():
        print(f"{name}: {', '.join(f'{key} {value:.5g}' for key, value in part.numbers.items())} ({_counts(part)})")
    for key in next(iter(folders.values())).numbers:
        mean = sum(part.numbers[key] for part in folders.values()) / len(folders)
        print(f"mean of {len(folders)} folders: {key} {mean:.5g}")


def _counts(result: Evaluation) -> str:
    real, fake = (result.card[side]["n"] or "unknown" for side in ("real", "fake"))
    return f"n_real = {real}, n_fake = {fake}"


def _label(key: str) -> str:
    return "FID" if key == "fid" else key


def identity(extractor: Extractor) -> str:
    """What a number is of."""
    names = extractor.identity()
    return (
        f"extractor {names['extractor']}, protocol {names['protocol']}, layer {names['layer']}, "
        f"weights {names['weights_sha256'][:8]}"
    )


def print_warnings(warnings: list[str]) -> None:
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
