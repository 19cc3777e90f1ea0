"""The heap of the C library, in which everything lies that a CPU computes."""

from __future__ import annotations

import ctypes
import os
import sys

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
LARGEST = 2**31 - 1  # bytes; it takes an int
OWN_SETTINGS = ("GLIBC_TUNABLES", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")


def keep_freed_memory() -> bool:
    """From now on this process keeps what memory it frees for what it computes next; False where nothing was changed.

    glibc gives every block above 32 MiB, and the end of its heap, back to the system when it is freed. The output of
    the next layer then comes page by page, each zeroed when it is first touched, which took half of the time of
    pictures of 1024x1024 (docs/performance.md). Peak memory stays about what it was; what was used is only not given
    back before the process ends. Settings of malloc in the environment stand.
    """
    if not sys.platform.startswith("linux") or any(name in os.environ for name in OWN_SETTINGS):
        return False
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)  # musl, for one, has none
    return bool(set_option and set_option(MMAP_THRESHOLD, LARGEST) and set_option(TRIM_THRESHOLD, LARGEST))
