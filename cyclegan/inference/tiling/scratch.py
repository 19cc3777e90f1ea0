"""Arrays that lie in files and not in memory."""

from __future__ import annotations

import errno
import math
import mmap
import os
import shutil
import tempfile
from pathlib import Path
from typing import BinaryIO

import numpy as np

from cyclegan.errors import UserError


class ScratchError(UserError, OSError):
    """No room or no folder for scratch files; the message names it."""


def check_folder(folder: Path) -> None:
    """Raises ScratchError if no file can be made there."""
    try:
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise ScratchError(f"--scratch {folder}: {error.strerror}; name a folder that can be written to") from None


def check_space(folder: Path | None, needed: int) -> None:
    free = shutil.disk_usage(folder or tempfile.gettempdir()).free
    if free < needed:
        raise OSError(f"{_size(needed)} more are needed and {_size(free)} are free")


def scratch_array(shape: tuple[int, ...], dtype: np.dtype | type, folder: Path | None) -> np.memmap:
    """In a file that vanishes with the last reference to it. Raises ScratchError."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    try:
        check_space(folder, size)
        with tempfile.TemporaryFile(dir=folder) as file:
            _reserve(file, size)
            return np.memmap(file, dtype, "r+", shape=shape)
    except OSError as error:
        place = folder or tempfile.gettempdir()
        raise ScratchError(
            f"scratch files in {place}: {error.strerror or error}; name a folder with more space"
        ) from None


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _reserve(file: BinaryIO, size: int) -> None:
    """Take the space now, where that can be done: a disk that fills up under a mapped file kills the process."""
    try:
        os.posix_fallocate(file.fileno(), 0, size)
    except (AttributeError, OSError) as error:
        if isinstance(error, OSError) and error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
            raise
        file.truncate(size)


def release(*arrays: np.ndarray) -> None:
    """Leave the pages of memmaps to the system, which keeps what it has room for; until then they count as ours."""
    for array in arrays:
        shared = isinstance(array, np.memmap) and array.mode != "c"  # "c": changes would be lost
        while isinstance(array, np.ndarray):
            array = array.base
        if shared and isinstance(array, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            array.madvise(mmap.MADV_DONTNEED)
