"""What files hold, as digests of their bytes in a table, so that only new and changed files are read.

As in git's index, a file whose stamp (size, times and inode) is that of the table is taken to be unchanged. One that
has just been changed when it is read could change once more within the same tick of its clock: it is not in the table.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from tqdm import tqdm

from cyclegan.data.images import ImageError
from cyclegan.whole_files import open_replacing

JUST = 2 * 10**9  # nanoseconds: no file system's clock ticks more slowly
PIECE = 2**20  # bytes that each thread holds
AT_ONCE = 256  # files given to the threads


def remembered(files: dict[str, Path], table: Path) -> dict[str, str]:
    """The digests of those files, by name, that are in the table as they are now."""
    entries = _entries(table)
    return {
        name: entries[name][1] for name, path in files.items() if name in entries and entries[name][0] == _stamp(path)
    }


def digests_of(files: dict[str, Path], table: Path, mark: str) -> dict[str, str | None]:
    """Those of all files, None of one that cannot be read; they are in the table then, if that can be written.

    What another process adds to the table at the same time is lost, and read again the next time.

    Args:
        files: by name
        table: the file of digests
        mark: begins its name until it is whole, as of `open_replacing`
    """
    now, known = time.time_ns(), remembered(files, table)
    new = {name: path for name, path in files.items() if name not in known}
    stamps = {name: _stamp(path) for name, path in new.items()}  # before they are read
    read = _read(new)
    settled = [name for name in new if read[name] and now - max(stamps[name][1:3]) > JUST]
    if settled:
        entries = _entries(table) | {name: [stamps[name], read[name]] for name in settled}
        with suppress(OSError), open_replacing(table, mark) as file:
            file.write(json.dumps(entries).encode())
    return known | read


def _entries(table: Path) -> dict[str, list]:
    """{name: [stamp, digest]}, nothing if there is no table or it is damaged."""
    try:
        entries = json.loads(table.read_bytes())
    except (OSError, ValueError):
        return {}
    sound = isinstance(entries, dict) and all(isinstance(e, list) and len(e) == 2 for e in entries.values())
    return entries if sound else {}


def _stamp(path: Path) -> list[int]:
    try:
        found = path.stat()
    except OSError as error:
        raise ImageError(f"cannot read {path}: {error.strerror}") from None
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def _read(files: dict[str, Path]) -> dict[str, str | None]:
    digests: list[str | None] = []
    paths, bar = list(files.values()), tqdm(None, "data.cache: reading", len(files), unit="img", disable=None, delay=1)
    with bar, ThreadPoolExecutor(os.cpu_count()) as threads:
        for first in range(0, len(paths), AT_ONCE):
            digests += threads.map(_digest, paths[first : first + AT_ONCE])
            bar.update(len(digests) - first)
    return dict(zip(files, digests, strict=True))


def _digest(path: Path) -> str | None:
    digest = hashlib.sha256()
    try:
        with path.open("rb", buffering=0) as file:
            while piece := file.read(PIECE):
                digest.update(piece)
    except OSError:
        return None
    return digest.hexdigest()
