"""What the training doctor says, in log/remarks.jsonl, and whether a run should go back for it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from cyclegan.training.journal import read_metrics

RETURN_FROM = ("diverging", "inverted", "collapsed")  # the weights are spoiled; the others are cured by settings


@dataclass(frozen=True)
class Remark:
    """One sentence: what was seen, what people do about it, where to read on."""

    images: int
    kind: str
    message: str
    since: int  # images when it was first seen


def state_to_return_to(remarks: list[Remark], states: list[int], returns: int, most: int) -> int | None:
    """Images of the state to go back to with a new seed; 0 means from the start, None means to go on.

    Args:
        remarks: the ones just made
        states: images of the intact states
        returns: how often the run has gone back already
        most: how often it may
    """
    spoiled = [remark.since for remark in remarks if remark.kind in RETURN_FROM]
    if not spoiled or returns >= most:
        return None
    return max((images for images in states if images < min(spoiled)), default=0)


def add_remarks(path: Path, remarks: list[Remark]) -> None:
    """Append to a log/remarks.jsonl."""
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(asdict(remark)) + "\n" for remark in remarks)


def read_remarks(path: Path) -> list[Remark]:
    """All remarks of a run; none if nothing was ever remarked."""
    return [Remark(**line) for line in read_metrics(path)] if path.exists() else []


def drop_remarks_after(path: Path, images: int) -> None:
    """What a run said after the state that it now resumes from, it will say again."""
    kept = [remark for remark in read_remarks(path) if remark.images <= images]
    path.unlink(missing_ok=True)
    if kept:
        add_remarks(path, kept)
