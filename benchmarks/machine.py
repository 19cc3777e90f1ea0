"""What a benchmark ran on, and how much memory it held: the same for all of them."""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from cyclegan.training.environment import git_commit

PACKAGES = ("torch", "torchvision", "accelerate", "numpy", "pillow", "opencv-python-headless", "scipy")


def about(threads: int | None = None, device: str = "cpu") -> dict[str, Any]:
    """Machine, commit and versions, for a benchmark's JSON."""
    commit = git_commit(Path(__file__).parent)
    return {
        "machine": machine(threads, device),
        "commit": commit,
        "versions": {name: version(name) for name in PACKAGES},
    }


def machine(threads: int | None = None, device: str = "cpu") -> str:
    """The GPU's name, or the processor's with the threads that torch uses (all cores if not told)."""
    if device.startswith("cuda"):
        return f"{torch.cuda.get_device_name(device)}, torch {torch.__version__}"
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    flags = {flag for line in lines if line.startswith("flags") for flag in line.split()}
    bf16 = next((kind for kind in ("amx_bf16", "avx512_bf16") if kind in flags), "no bf16 instructions")
    name = names[0] if names else platform.processor() or platform.machine()
    return f"{name} ({bf16}), {threads or os.cpu_count()} threads, torch {torch.__version__}"


def peak_memory(device: str | torch.device = "cpu") -> float:
    """MiB: what torch had of the GPU at most, or this process of the memory."""
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    status = Path("/proc/self/status").read_text()  # getrusage's peak is inherited from the process that started us
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 2**10
