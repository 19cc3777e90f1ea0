"""The heap of the C library, in which everything lies that a CPU computes."""

from __future__ import annotations

import ctypes
import os
import sys

TRIM_THRESHOLD, MMAP_MAX, ARENA_MAX = -1, -4, -8  # glibc's malloc.h
OWN_SETTINGS = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_ARENA_MAX")


def keep_freed_memory() -> bool:
    """From now on this process keeps what memory it frees for what it computes next; False where nothing was changed.

    glibc gives large blocks, and the end of its heap, back to the system when they are freed. The output of the next
    layer then comes page by page, each zeroed when it is first touched, which took half of the time of pictures of
    1024x1024 (docs/performance.md). What was used is only not given back before the process ends, or before
    `give_back_freed_memory`. To be called before there are threads, which would have heaps of their own, of 64 MiB at
    most. Settings of malloc in the environment stand.
    """
    libc = _glibc()
    own = any(name in os.environ for name in OWN_SETTINGS) or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "")
    if own or libc is None:
        return False
    return all([libc.mallopt(MMAP_MAX, 0), libc.mallopt(TRIM_THRESHOLD, -1), libc.mallopt(ARENA_MAX, 1)])


def give_back_freed_memory() -> None:
    """To the system: what comes next has other sizes, and would not fit into the holes."""
    if libc := _glibc():
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None  # musl has neither
