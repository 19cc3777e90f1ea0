"""Which pictures of two domains show the same thing, told by their names: then translations have a truth.

Equal names are no proof: two folders that were numbered from 001 on have them too, and every score against such a
"truth" would be nonsense.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from cyclegan.data.folders import MARK, subject
from cyclegan.errors import UserError

UNKNOWN = "No true counterparts are known."
KNOWN = "MAE, PSNR and SSIM are to the true counterpart."


class CounterpartError(UserError, ValueError):
    """Pictures that are said to be pairs and have no partners, or more than one; the message names one."""


def counterparts(
    files: Sequence[Path], folder: Path, others: Sequence[Path], other: Path | None, paired: bool | None = None
) -> tuple[dict[Path, Path], str]:
    """The true picture of each file among `others` (all files have one, or none has), and a sentence about it.

    Args:
        files, folder: pictures and the folder that their names start from
        others, other: the same of the other domain
        paired: True: pictures of one name are pairs; False: there are none; None: only if names can't agree by chance

    Raises CounterpartError if pairs are wanted and a partner is missing, or two pictures of a domain share a name.
    """
    if paired is False:
        return {}, UNKNOWN
    if paired and folder == other:  # halves of the same files
        return {path: path for path in files}, KNOWN
    if twins := _twins(files, folder) or _twins(others, other):
        told = f"{twins[0]} and {twins[1]} have one name but for suffix and mark"
        if paired:
            raise CounterpartError(f"pictures of one name are to be pairs, but {told}: rename one of them")
        return {}, f"No true counterparts are known: {told}."
    by_name = {subject(path, other): path for path in others}
    partners = {path: by_name.get(subject(path, folder)) for path in files}
    alone = [path for path, partner in partners.items() if partner is None]
    if alone and paired:
        raise CounterpartError(
            f"pictures of one name are to be pairs, but {other or 'the other domain'} has none for {len(alone)} of "
            f"{folder}, such as {alone[0].name}"
        )
    if alone:
        return {}, UNKNOWN
    if paired is None and may_agree_by_chance(files, others):
        return {}, "Names agree, but numbers do so by chance: if they are pairs, say so (--paired yes)."
    return partners, KNOWN


def may_agree_by_chance(files: Sequence[Path], others: Sequence[Path]) -> bool:
    """Whether the names are one word and a number, as cameras and scripts give them, without a mark of the domain."""
    if _marks(files) and _marks(others) and _marks(files) != _marks(others):
        return False
    patterns = {re.sub(r"\d+", "#", path.stem) for path in files}
    return len(patterns) == 1 and "#" in patterns.pop()


def _twins(files: Sequence[Path], folder: Path | None) -> tuple[Path, Path] | None:
    """The first two pictures of a domain that show the same by their names."""
    seen: dict[str, Path] = {}
    for path in files:
        first = seen.setdefault(subject(path, folder), path)
        if first != path:
            return first, path
    return None


def _marks(files: Sequence[Path]) -> set[str]:
    """The marks in the names of a domain; empty if some names have none."""
    found = [MARK.search(path.stem) for path in files]
    return {match[1] for match in found} if all(found) else set()
