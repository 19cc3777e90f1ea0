"""Files that are complete or absent: written under another name beside their place, flushed, then renamed."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


@contextmanager
def open_replacing(path: Path | str, mark: str = "") -> Iterator[BinaryIO]:
    """A file to write into, which takes `path`'s place when the block ends well and vanishes when it does not.

    mark: begins its name until then, so that what a killed process left can be told apart
    """
    path = Path(path)
    temporary = path.with_name(f".{mark}{secrets.token_hex(4)}.part")
    try:
        try:
            with temporary.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        if str(error.filename) != str(temporary):
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None  # the name that was asked for


def write_whole(path: Path | str, text: str) -> None:
    with open_replacing(path) as file:
        file.write(text.encode("utf-8"))


def write_page(path: Path | str, page: str) -> None:
    """Write a page for people: a question mark stands for what is no UTF-8 in the name of a file."""
    with open_replacing(path) as file:
        file.write(page.encode("utf-8", errors="replace"))
