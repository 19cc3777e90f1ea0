"""Going back by itself: from spoiled weights to the last good state, with a new seed.

log/rollbacks.jsonl has a line for each time; how many there are decides the seed, so that a run that is interrupted
after going back goes on with the new one.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from cyclegan.errors import UserError
from cyclegan.training.doctor import SPOILED
from cyclegan.training.journal import read_metrics
from cyclegan.training.remarks import Remark

STRIDE = 1_000_003  # between two seeds: neighbours may be used for other runs


class Diverged(UserError, RuntimeError):
    """Losses or weights became infinite or not a number."""


@dataclass
class Rollback(Exception):
    """Raised on every process where the run should go back: after `images`, to those of a state, 0 for its start."""

    images: int
    to: int
    why: str


def spoiled(remarks: list[Remark]) -> str | None:
    """The first remark on spoiled weights, None if there is none."""
    return next((remark.message for remark in remarks if remark.kind in SPOILED), None)


def sound_state(sound: int, states: list[int]) -> int:
    """The newest of the states (images) whose weights are `sound` so far; 0, the start of the run, if none is."""
    return max((state for state in states if state <= sound), default=0)


def rollbacks(log: Path) -> list[dict]:
    """Those that the run has had, oldest first."""
    path = log / "rollbacks.jsonl"
    return read_metrics(path) if path.exists() else []


def note_rollback(log: Path, rollback: Rollback) -> None:
    with (log / "rollbacks.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(rollback)) + "\n")
        file.flush()
        os.fsync(file.fileno())


def seed_after(seed: int, times: int) -> int:
    """What stands for the run's seed once it has gone back so often."""
    return seed + times * STRIDE
