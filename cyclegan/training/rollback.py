"""Going back by itself: from spoiled weights to the last good state, with a new seed.

log/rollbacks.jsonl has a line for each time; how many there are decides the seed, so that a run that is interrupted
after going back goes on with the new one.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from cyclegan.errors import UserError
from cyclegan.training.remarks import Remark

SPOILED = ("diverging", "inverted", "collapsed")  # settings cure the others, not other weights
STRIDE = 1_000_003  # between two seeds: neighbours may be used for other runs


class Diverged(UserError, RuntimeError):
    """Losses or weights became infinite or not a number."""


@dataclass
class Rollback(Exception):
    """Raised on every process where the run should go back: after `images`, to those of a state, 0 for the start."""

    images: int
    to: int
    why: str


def spoiled_since(remarks: list[Remark]) -> tuple[int | None, str]:
    """Images when the first sign of spoiled weights was seen, and the remark; (None, "") if none is of that kind."""
    spoiled = [remark for remark in remarks if remark.kind in SPOILED]
    first = min(spoiled, key=lambda remark: remark.since, default=None)
    return (first.since, first.message) if first else (None, "")


def state_before(images: int, states: list[int]) -> int:
    """The newest of the states (images) from before so many; 0, the start of the run, if there is none."""
    return max((state for state in states if state < images), default=0)


def rollbacks(log: Path) -> list[dict]:
    """Those that the run has had, oldest first."""
    path = log / "rollbacks.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def note_rollback(log: Path, rollback: Rollback) -> None:
    with (log / "rollbacks.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(rollback)) + "\n")


def seed_after(seed: int, times: int) -> int:
    """What stands for the run's seed once it has gone back so often."""
    return seed + times * STRIDE
