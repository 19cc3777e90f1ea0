"""What the training doctor says, in log/remarks.jsonl."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from cyclegan.training.journal import read_metrics


@dataclass(frozen=True)
class Remark:
    """One sentence: what was seen, what people do about it, where to read on."""

    images: int
    kind: str
    message: str
    since: int  # images when it was first seen


def add_remarks(path: Path, remarks: list[Remark]) -> None:
    """Append to a log/remarks.jsonl."""
    with path.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(asdict(remark)) + "\n" for remark in remarks)


def read_remarks(path: Path) -> list[Remark]:
    """All remarks of a run; none if nothing was ever remarked. Another version's lines that lack a key are left out."""
    names = Remark.__dataclass_fields__
    lines = read_metrics(path) if path.exists() else []
    return [Remark(**{name: line[name] for name in names}) for line in lines if names.keys() <= line.keys()]


def drop_remarks_after(path: Path, images: int) -> None:
    """What a run said after the state that it now resumes from, it will say again."""
    kept = [remark for remark in read_remarks(path) if remark.images <= images]
    path.unlink(missing_ok=True)
    if kept:
        add_remarks(path, kept)
