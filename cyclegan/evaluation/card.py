"""The protocol card: a result with all that someone else needs to get it again, as JSON, and what may be compared."""

from __future__ import annotations

import json
import math
import platform
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from cyclegan.errors import UserError
from cyclegan.evaluation.extractors import Extractor
from cyclegan.evaluation.features import FeatureSet

FORMAT = 1
PACKAGES = ("cyclegan", "torch", "torchvision", "numpy", "pillow")
# Two results that differ in one of these are of different measurements.
MUST_AGREE = (
    ("extractor",),
    ("protocol",),
    ("layer",),
    ("weights_sha256",),
    ("settings", "neighbours"),
    ("settings", "precision_neighbours"),
    ("settings", "subsets"),
    ("settings", "subset_size"),
    ("settings", "seed"),
    ("real", "n"),
    ("real", "fingerprint"),
    ("real", "identity"),
    ("fake", "n"),
    ("fake", "identity"),
)


class CardError(UserError, ValueError):
    """A card that cannot be read, or cards that cannot be compared; the message names file and field."""


def make_card(
    numbers: dict[str, float],
    fakes: FeatureSet,
    reals: FeatureSet,
    extractor: Extractor,
    settings: object,
    warnings: Sequence[str],
    checkpoint: str | None = None,
) -> dict:
    """The card of one result; `settings` is a dataclass."""
    return {
        "format": FORMAT,
        "numbers": numbers,
        "real": _side(reals),
        "fake": _side(fakes),
        **extractor.identity(),
        "settings": asdict(settings),
        "checkpoint": checkpoint,
        "warnings": list(warnings),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "device": _device(extractor),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def save_card(path: Path | str, card: dict) -> None:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_text(json.dumps(finite(card), indent=2) + "\n")


def finite(tree: Any) -> Any:
    """The same for JSON, which has no infinity: null stands for it (the PSNR of equal pictures)."""
    if isinstance(tree, dict):
        return {key: finite(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [finite(value) for value in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree


def load_card(path: Path | str) -> dict:
    """Read a card; raises CardError for anything else."""
    try:
        card = json.loads(Path(path).read_text())
        missing = [key for key in ("format", "numbers", "real", "fake", "extractor", "protocol") if key not in card]
    except (OSError, UnicodeDecodeError, ValueError, TypeError) as error:
        raise CardError(f"cannot read the card {path}: {error}") from error
    if missing:
        raise CardError(f"{path} is no protocol card: it lacks {', '.join(missing)}")
    return card


def check_comparable(cards: dict[str, dict]) -> None:
    """Raise CardError naming the first field in which two of the cards (by name) are of different measurements."""
    (first_name, first), *others = cards.items()
    for name, card in others:
        for field in MUST_AGREE:
            one, other = _field(first, field), _field(card, field)
            if one != other:
                raise CardError(f"{first_name} and {name} cannot be compared: {_difference(field, first, card)}")
            if one is None and field == ("real", "fingerprint"):
                raise CardError(
                    f"{first_name} and {name} cannot be compared: neither says what it was measured against"
                )


def table(cards: dict[str, dict]) -> str:
    """The cards' numbers as a Markdown table, a row a card."""
    keys = list(dict.fromkeys(key for card in cards.values() for key in card["numbers"]))
    rows = [["result", *keys, "n real", "n fake"]]
    for name, card in cards.items():
        numbers = [_shown(card["numbers"].get(key)) for key in keys]
        rows.append([name, *numbers, *(str(card[side]["n"] or "unknown") for side in ("real", "fake"))])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def _side(features: FeatureSet) -> dict:
    return {
        "source": features.source,
        "n": features.n,
        "fingerprint": features.fingerprint,
        "identity": features.identity,
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _device(extractor: Extractor) -> str:
    device = torch.device(extractor.device)
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def _field(card: dict, keys: Sequence[str]) -> object:
    for key in keys:
        card = card.get(key) if isinstance(card, dict) else None
    return card


def _difference(field: tuple[str, ...], first: dict, second: dict) -> str:
    """In words; of pictures by where they lie, since fingerprints say nothing to a reader."""
    if field == ("real", "fingerprint"):
        field = ("real", "source")
    one, other = _field(first, field), _field(second, field)
    if one == other:
        return f"the real pictures are from {one} in both, but they are not the same ones"
    return f"{'.'.join(field)} is {one} in the first and {other} in the second"


def _shown(number: float | None) -> str:
    return "" if number is None else f"{number:.5g}"
