"""Where to compute: what there is, and one line about what there is not."""

from __future__ import annotations

import platform
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from cyclegan.errors import UserError, reason_of

# What has a switch of TF32: torch's newer kind, which can be read and set whichever kind a program uses.
SWITCHED = (torch.backends.cuda.matmul, torch.backends.cudnn.conv, torch.backends.cudnn.rnn)
COMPUTED_WITH = {"AVX2": {"avx2"}, "AVX512": {"avx2", "avx512f"}}
ZEN_5 = "26"  # AMD's family
_switching, _inside, _before = threading.Lock(), [], []


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
        raise DeviceError(f"no device {name} here (cpu, cuda, cuda:1, mps …): {reason_of(error)}") from None


def as_double(x: Tensor) -> Tensor:
    """In double precision, which Apple's GPUs do not have: from there on the CPU."""
    return (x.cpu() if x.device.type == "mps" else x).double()


@contextmanager
def whole_float32() -> Iterator[None]:
    """Inside, products of float32 are not rounded to TF32, ten bits, as NVIDIA's convolutions are by default.

    Afterwards as before; of several threads inside, the last to leave sets it back.
    """
    with _switching:
        if not _inside:
            _before[:] = [part.fp32_precision for part in SWITCHED]
            for part in SWITCHED:
                part.fp32_precision = "ieee"
        _inside.append(None)
    try:
        yield
    finally:
        with _switching:
            _inside.pop()
            for part, precision in zip(SWITCHED, _before, strict=True) if not _inside else ():
                part.fp32_precision = precision


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Inside, NVIDIA's products of float32 may be rounded to TF32, or must not; afterwards as before."""
    before = [part.fp32_precision for part in SWITCHED]
    _allow_tf32(allowed, allowed)
    try:
        yield
    finally:
        _allow_tf32(*(precision == "tf32" for precision in before[:2]))
        for part, precision in zip(SWITCHED, before, strict=True):
            part.fp32_precision = precision


def _allow_tf32(products: bool, convolutions: bool) -> None:
    """By torch's older switches, which torch.compile reads; they refuse to be read where the newer ones differ."""
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = products, convolutions


def has_fast_bf16(device: torch.device) -> bool:
    """Whether convolutions in bf16 are faster than in float32.

    On NVIDIA's Ampere and later, CPUs with AMX, and AMD's with AVX512-BF16; Intel's AVX512-BF16 without AMX is slower
    (docs/performance.md).
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    found = cpu_features() if device.type == "cpu" else set()
    return "amx_bf16" in found or {"avx512_bf16", "AuthenticAMD"} <= found


def has_fast_winograd(device: torch.device) -> bool:
    """Whether Winograd's convolutions, in channels_last, are faster in float32: on x86 from AVX2 on."""
    return device.type == "cpu" and "avx2" in cpu_features()


def least_winograd_places(device: torch.device) -> int:
    """How many places of 256 channels they are faster for: more on Zen 5, where oneDNN's own way is faster."""
    return 2048 if device.type == "cpu" and {"AuthenticAMD", ZEN_5} <= cpu_features() else 1024


def cpu_features() -> set[str]:
    """Vendor, family and flags of the first processor as Linux names them; elsewhere of flags what PyTorch uses."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        vendor = set(platform.processor().split())  # on Windows it ends in one
        return vendor | COMPUTED_WITH.get(torch.backends.cpu.get_cpu_capability(), set())
    return {word for key in ("vendor_id", "cpu family", "flags") for word in _first(lines, key).split()}


def _first(lines: list[str], key: str) -> str:
    return next((line.partition(":")[2] for line in lines if line.startswith(key)), "")
