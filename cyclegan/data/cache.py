"""Pictures as they are before crop and flip, decoded and resized once, in a file that all workers and processes map.

<domain>-<digest>.pixels holds the pixels of all pictures one after another, then a table of them (JSON), then where the
table begins. It is written under another name and renamed when it is whole. The digest is of all that the pixels depend
on, names and bytes of the pictures too: other pixels have another name, and who reads a file keeps it. So that not all
pictures are read at each start, digests-<digest of their folder>.json remembers theirs (digests.py).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
import PIL
import torch
from tqdm import tqdm

from cyclegan.config import ConfigError
from cyclegan.data.digests import digests_of, remembered
from cyclegan.data.images import ImageError
from cyclegan.data.unpack import need_space
from cyclegan.whole_files import open_replacing

try:
    import fcntl
except ImportError:  # Windows: then each process makes its own, and the last one stays
    fcntl = None

FORMAT = 2
END = 8  # bytes at the end of the file: the place of the table
BEGUN = "pixels-"  # begins the name of a file that is not whole yet
AT_ONCE = 64  # pictures decoded before they are written, at most,
MEMORY = 2**28  # and as soon as they have so many bytes, no more are begun


class Cache:
    """`cache[path]` gives the pixels of a picture that is in it. Opened in each process that reads, when it first does.

    Args:
        path: the file
        entries: where it has which picture, as in its table
    """

    def __init__(self, path: Path, entries: dict[Path, dict]):
        self.path, self.entries = path, entries
        self.pixels: np.memmap | None = None

    def __contains__(self, picture: Path) -> bool:
        """Not so for a picture that could not be read: whatever was wrong may have passed."""
        return picture in self.entries

    def __getitem__(self, picture: Path) -> np.ndarray:
        """(height, width, channels), not to be written to."""
        entry = self.entries[picture]
        if self.pixels is None:
            self.pixels = np.memmap(self.path, np.uint8, "r")
        return np.ndarray(entry["shape"], entry["type"], self.pixels, entry["start"])

    def __getstate__(self) -> dict:
        return {**vars(self), "pixels": None}  # a worker that is spawned maps the file itself


def new_cache(
    folder: Path, domain: str, root: Path, files: list[Path], settings: dict, load: Callable[[Path], np.ndarray]
) -> Cache:
    """The cache of a domain's pictures in `folder`, made now if there is none that fits; others wait meanwhile.

    Args:
        root: folder of the pictures
        files: the pictures, below it
        settings: what `load` makes of a picture depends on
        load: gives the pixels of a picture, uint8 or float32

    Raises ConfigError if there is none that fits and the folder cannot be written to or is full, ImageError if pictures
    are changed while it is made.
    """
    named = {_name(picture, root): picture for picture in files}
    digests = folder / f"digests-{_digest(str(root.resolve()))}.json"
    try:
        about = {
            "settings": settings,
            "format": FORMAT,
            "versions": [cv2.__version__, torch.__version__, PIL.__version__],
            "files": _contents(folder, domain, named, digests),
        }
        path = folder / f"{domain}-{_digest(json.dumps(about, sort_keys=True))}.pixels"
        table = _table(path)
        if table is None:
            folder.mkdir(parents=True, exist_ok=True)
            with _alone(folder):
                table = _table(path)
                if table is None:
                    table = _write(path, root, files, load, lambda: digests_of(named, digests, BEGUN) == about["files"])
    except OSError as error:
        raise ConfigError(
            f"data.cache: {folder}: {error.strerror or error}; name another folder there, or data.cache=false"
        ) from None
    return Cache(path, {picture: table[name] for name, picture in named.items() if name in table})


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _name(picture: Path, root: Path) -> str:
    return picture.relative_to(root).as_posix()


def _contents(folder: Path, domain: str, named: dict[str, Path], digests: Path) -> dict[str, str | None]:
    """The digest of each picture's bytes; one process reads those that are new, and others wait meanwhile."""
    known = remembered(named, digests)
    if len(known) == len(named):
        return known
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(_alone(folder))
        except OSError:
            if not any(folder.glob(f"{domain}-*.pixels")):  # else there may be one that fits
                raise
        return digests_of(named, digests, BEGUN)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One process at a time; a process that is killed leaves no lock, and what it had begun is cleared away."""
    with (folder / ".lock").open("w") as lock:
        if fcntl:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for begun in folder.glob(f".{BEGUN}*.part"):
                begun.unlink()
        yield


def _table(path: Path) -> dict | None:
    """{name: {"start", "shape", "type"}} of the pictures that could be read, None if there is no whole file."""
    try:
        with path.open("rb") as file:
            file.seek(-END, os.SEEK_END)
            end = file.tell()
            start = int.from_bytes(file.read(END), "little")
            file.seek(start)
            return json.loads(file.read(end - start))
    except (OSError, ValueError):
        return None


def _write(
    path: Path, root: Path, files: list[Path], load: Callable[[Path], np.ndarray], unchanged: Callable[[], bool]
) -> dict:
    table: dict[str, dict] = {}
    bar = tqdm(_loaded(files, load), f"data.cache: {path.name}", len(files), unit="img", disable=None)
    with open_replacing(path, BEGUN) as file:
        for number, (picture, pixels) in enumerate(bar, 1):
            if pixels is not None:
                table[_name(picture, root)] = _append(file, pixels)
            if number % AT_ONCE == 0:
                need_space(path.parent, file.tell() * (len(files) - number) // number)
        start = file.tell()
        file.write(json.dumps(table).encode())
        file.write(start.to_bytes(END, "little"))
        if not unchanged():
            raise ImageError(f"pictures in {root} were changed while data.cache was being made; start again")
    return table


def _loaded(files: list[Path], load: Callable[[Path], np.ndarray]) -> Iterator[tuple[Path, np.ndarray | None]]:
    """Each picture and its pixels, in order, decoded ahead by all cores; None for one that cannot be read."""
    waiting: deque[tuple[Path, Future]] = deque()
    cores = os.cpu_count() or 1
    with ThreadPoolExecutor(cores) as threads:
        for picture in files:
            while not _room(waiting, cores):
                yield _first(waiting)
            waiting.append((picture, threads.submit(_load, load, picture)))
        while waiting:
            yield _first(waiting)


def _room(waiting: deque[tuple[Path, Future]], cores: int) -> bool:
    """For one more: no more than two of each core begun, and what is decoded within MEMORY."""
    done = [future.result() for _, future in waiting if future.done()]
    held = sum(pixels.nbytes for pixels in done if pixels is not None)
    return len(waiting) < AT_ONCE and len(waiting) - len(done) < 2 * cores and held < MEMORY


def _first(waiting: deque[tuple[Path, Future]]) -> tuple[Path, np.ndarray | None]:
    picture, future = waiting.popleft()
    return picture, future.result()


def _load(load: Callable[[Path], np.ndarray], picture: Path) -> np.ndarray | None:
    try:
        return load(picture)
    except ImageError:
        return None


def _append(file: BinaryIO, pixels: np.ndarray) -> dict:
    file.write(bytes(-file.tell() % 64))  # floats want their place
    entry = {"start": file.tell(), "shape": pixels.shape, "type": str(pixels.dtype)}
    file.write(np.ascontiguousarray(pixels).data)
    return entry
