"""Unpacking a stranger's archive: nothing leaves the folder, grows without bounds or stays half-done."""

from __future__ import annotations

import errno
import gzip
import lzma
import os
import re
import shutil
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, NamedTuple

from tqdm import tqdm

MOST_BYTES, MOST_FILES = 20 << 30, 500_000
MOST_EXPANSION = 100  # times the archive's size; photographs hardly grow at all
DAMAGED = (
    zipfile.BadZipFile,
    tarfile.TarError,
    gzip.BadGzipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    RuntimeError,  # encrypted, or packed in an unknown way
)


class ArchiveError(Exception):
    """The archive is damaged, dangerous or holds something else."""


class Member(NamedTuple):
    name: str
    size: int
    is_folder: bool
    is_plain: bool  # a file or folder: no link, no device
    open: Callable[[], IO[bytes]]


def unpack(archive: Path, target: Path, is_wanted: Callable[[Path], bool]) -> None:
    """The wanted folder of a zip or tar archive (its top, or one below) as `target`, whole or not at all."""
    unpacked = target.with_name(f".{target.name}.unpacking")
    shutil.rmtree(unpacked, ignore_errors=True)  # left by a process that was killed
    try:
        unpacked.mkdir()
        _extract(archive, unpacked)
        content = next((one for one in (unpacked, *sorted(unpacked.iterdir())) if is_wanted(one)), None)
        if content is None:
            raise ArchiveError(f"{archive} does not hold the folders of {target.name}, with images in each")
        if target.is_dir():
            target.rmdir()  # Windows does not rename onto an empty folder
        content.rename(target)
    finally:
        shutil.rmtree(unpacked, ignore_errors=True)


def need_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        message = f"not enough space: {needed / 1e6:,.0f} MB needed, {free / 1e6:,.0f} MB free"
        raise OSError(errno.ENOSPC, message, str(folder))


def _extract(archive: Path, folder: Path) -> None:
    try:
        count = _check_members(archive, folder)
        for member in tqdm(_members(archive), f"unpacking {archive.name}", count, unit=" files", disable=None):
            path = folder / _inside(member.name)
            if member.is_folder:
                path.mkdir(parents=True, exist_ok=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            with member.open() as source, path.open("wb") as file:
                shutil.copyfileobj(source, file)  # neither zipfile nor tarfile gives more than the declared size
    except DAMAGED as error:
        raise ArchiveError(f"{archive} is damaged, or neither zip nor tar ({type(error).__name__})") from error
    except ArchiveError as error:
        raise ArchiveError(f"{archive} refused: {error}") from error


def _check_members(archive: Path, folder: Path) -> int:
    """How many members there are, once all of them are known to be harmless."""
    count = total = 0
    most = min(MOST_BYTES, MOST_EXPANSION * archive.stat().st_size)
    for count, member in enumerate(_members(archive), 1):
        _inside(member.name)
        if not member.is_plain:
            raise ArchiveError(f"its entry {member.name!r} is a link or a device")
        total += member.size
        if total > most or count > MOST_FILES:
            raise ArchiveError(f"it would grow beyond {most / 1e6:,.1f} MB or {MOST_FILES:,} files")
    need_space(folder, total)
    return count


def _members(archive: Path) -> Iterator[Member]:
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as opened:
            for entry in opened.infolist():
                is_plain = stat.S_IFMT(entry.external_attr >> 16) in (0, stat.S_IFREG, stat.S_IFDIR)
                read = partial(opened.open, entry)
                yield Member(entry.filename, entry.file_size, entry.is_dir(), is_plain, read)
    else:
        with tarfile.open(archive) as opened:
            for entry in opened:
                is_plain = entry.isreg() or entry.isdir()
                yield Member(entry.name, entry.size, entry.isdir(), is_plain, partial(opened.extractfile, entry))


def _inside(name: str) -> PurePosixPath:
    """The path of an archive's entry, relative to the folder it is unpacked into and never out of it."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or PureWindowsPath(name).drive:
        raise ArchiveError(f"its entry {name!r} leads out of the folder")
    if os.name == "nt":  # some photographs are named after the minute they were taken in: 17:41:55.jpg
        path = PurePosixPath(re.sub(r'[<>:"|?*]', "_", str(path)))
    return path
