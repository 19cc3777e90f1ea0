"""Where to compute: what there is, and one line about what there is not."""

from __future__ import annotations

import torch

from cyclegan.errors import UserError


class DeviceError(UserError, ValueError):
    """A device that is not there or cannot do what is asked of it."""


def default_device() -> str:
    """The GPU if there is one."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def usable_device(name: torch.device | str | None) -> torch.device:
    """The device of that name, None for the default; raises DeviceError."""
    try:
        return torch.empty(0, device=name or default_device()).device
    except (RuntimeError, AssertionError, ImportError) as error:  # torch has one for each kind of absence
        reason = str(error).splitlines()[0]
        raise DeviceError(f"no device {name} here (cpu, cuda, cuda:1, mps …): {reason}") from None
