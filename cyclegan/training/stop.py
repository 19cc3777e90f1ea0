"""Stopping between two updates: a signal from the scheduler or the keyboard, or the end of the time allowed."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator

from cyclegan.data.dataset import STOP_SIGNALS


class Stopper:
    """Notes signals while the run is inside the `with` block, instead of dying of them; a second Ctrl-C kills.

    Args:
        accelerator: its processes stop together, whichever of them was told to
        max_time: minutes, or None
    """

    def __init__(self, accelerator: Accelerator, max_time: float | None):
        self.deadline = time.monotonic() + max_time * 60 if max_time else float("inf")
        self.received = 0
        self.slowest = 0.0  # seconds that saving took so far: kept free before the deadline
        self.group = torch.distributed.new_group(backend="gloo") if accelerator.num_processes > 1 else None
        self.previous = {}

    def __enter__(self) -> Stopper:
        self._listen()
        return self

    def __exit__(self, *_: object) -> None:
        self._listen_no_more()
        if self.group is not None:
            torch.distributed.destroy_process_group(self.group)  # the processes stay together for a next run

    def _listen(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self.previous = {number: signal.signal(number, self._note) for number in STOP_SIGNALS}

    def _listen_no_more(self) -> None:
        for number, handler in self.previous.items():
            signal.signal(number, handler)

    @contextmanager
    def asleep(self) -> Iterator[None]:
        """Inside, signals end the process at once, as they do outside: for long work that a later start repeats."""
        self._listen_no_more()
        try:
            yield
        finally:
            self._listen()

    def _note(self, number: int, _: object) -> None:
        self.received = number
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def reason(self) -> str | None:
        """Why all processes should stop now, None if they should not. Every process has to call it."""
        late = time.monotonic() + 1.5 * self.slowest > self.deadline
        flags = torch.tensor([self.received, int(late)])
        if self.group is not None:
            torch.distributed.all_reduce(flags, op=torch.distributed.ReduceOp.MAX, group=self.group)
        if number := int(flags[0]):  # never set back to 0: a signal may have come while others were waited for
            self.received = number
            return signal.Signals(number).name
        return "training.max_time" if flags[1] else None


def ignore_ends_of_workers() -> None:
    """Leave it to the loader's `next` to notice that a worker died.

    PyTorch's handler of SIGCHLD, set when a loader starts its workers, raises wherever the program happens to be: in
    the middle of an update, or of a save.
    """
    if hasattr(signal, "SIGCHLD") and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
