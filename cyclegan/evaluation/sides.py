"""A domain's real pictures as one side of a distance."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from torch import Tensor

from cyclegan.config import Data
from cyclegan.data.images import to_bytes
from cyclegan.data.transforms import PlainTransform
from cyclegan.evaluation.features import Pictures


def pictures_of(data: Data, domain: str, files: Sequence[Path], folder: Path | None) -> Pictures:
    """These files of a domain ("A" or "B"), read as every FID tool does; where they hold both domains, its half."""
    if data.side_by_side:
        return Pictures(files, partial(_half, PlainTransform(data, domain)), folder, f"half {domain}")
    return Pictures(files, folder=folder)


def _half(transform: PlainTransform, path: Path) -> Tensor:
    return to_bytes(transform(path)).expand(3, -1, -1)
