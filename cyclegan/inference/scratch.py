"""Arrays that lie in files and not in memory."""

from __future__ import annotations

import math
import mmap
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np

from cyclegan.errors import UserError


class ScratchError(UserError, OSError):
    """No room for scratch files; the message names the folder."""


def check_space(folder: Path | None, needed: int) -> None:
    free = shutil.disk_usage(folder or tempfile.gettempdir()).free
    if free < needed:
        raise OSError(f"{needed / 1e9:.1f} GB more are needed and {free / 1e9:.1f} GB are free")


def scratch_array(shape: tuple[int, ...], dtype: np.dtype | type, folder: Path | None) -> np.memmap:
    """In a file that vanishes with the last reference to it. Raises ScratchError."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    try:
        check_space(folder, size)
        with tempfile.TemporaryFile(dir=folder) as file:
            if hasattr(os, "posix_fallocate"):  # a disk that fills up later would kill the process
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.truncate(size)
            return np.memmap(file, dtype, "r+", shape=shape)
    except OSError as error:
        place = folder or tempfile.gettempdir()
        raise ScratchError(
            f"scratch files in {place}: {error.strerror or error}; name a folder with more space"
        ) from None


def release(*arrays: np.ndarray) -> None:
    """Leave the pages of memmaps to the system, which keeps what it has room for; until then they count as ours."""
    for array in arrays:
        shared = isinstance(array, np.memmap) and array.mode != "c"  # "c": changes would be lost
        while isinstance(array, np.ndarray):
            array = array.base
        if shared and isinstance(array, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
            array.madvise(mmap.MADV_DONTNEED)
