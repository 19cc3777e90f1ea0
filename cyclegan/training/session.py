"""One session at a time for a run: a second one would drop the states that the first one saves."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tqdm import tqdm

from cyclegan.errors import UserError
from cyclegan.evaluation.ranks import on_first_rank

try:
    import fcntl
except ImportError:  # Windows: sessions are not told apart there
    fcntl = None


class RunBusy(UserError, RuntimeError):
    """Another session trains the run; the message says where."""


@contextmanager
def only_session(run: Path) -> Iterator[None]:
    """Inside, no other process trains the run, on any machine that shares its folder. Every process calls this.

    The first rank holds a lock on a file beside the run's folder, which may be moved away. The system lets go of it
    when that process ends, however it ends; loader workers, who may outlive it by seconds, don't inherit it.

    Raises RunBusy if another session holds it. File systems without locks get a warning.
    """
    held: list[IO[str]] = []
    on_first_rank(lambda: held.append(_locked(run.with_name(f".{run.name}.lock"), run)))
    try:
        yield
    finally:
        for file in held:
            file.close()


def _locked(path: Path, run: Path) -> IO[str]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+", encoding="utf-8")
    except OSError as error:
        raise UserError(f"results: cannot write to {path.parent} ({error.strerror}); name another folder") from None
    if fcntl is None:
        return file
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            file.seek(0)
            holder = file.read().strip() or "another process"
            file.close()
            raise RunBusy(
                f"{run}: {holder} is training this run; wait until it has ended, or give this one another name"
            ) from None
        tqdm.write(f"warning: {path}: no locks here ({error.strerror}); don't train {run.name} twice at a time")
        return file
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}")
    file.flush()
    return file
