"""What a run runs on: what somebody needs who wants to repeat it."""

from __future__ import annotations

import importlib.metadata
import platform
import shlex
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path

import torch
from accelerate import Accelerator

PACKAGES = ("torch", "torchvision", "accelerate", "albumentations", "numpy", "pillow")


def describe_environment(accelerator: Accelerator) -> dict[str, str | int]:
    """Versions, device, processes, commit, command and start of this session, for log/environment.json."""
    return {
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": shlex.join([sys.executable, *sys.argv]),
        "commit": git_commit(Path(__file__).parent),
        "cyclegan": _version("cyclegan"),
        "python": platform.python_version(),
        **{name: _version(name) for name in PACKAGES},
        "system": platform.platform(),
        "device": _device(accelerator.device),
        "processes": accelerator.num_processes,
        "threads of a process": torch.get_num_threads(),
        "precision": accelerator.mixed_precision,
    }


def git_commit(folder: Path) -> str:
    """The commit of our code, with a + if files were changed since; empty where it was installed without git."""
    try:
        ask = ["git", "-C", str(folder), "describe", "--always", "--abbrev=40", "--dirty=+", "--exclude=*"]
        answer = subprocess.run(ask, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout.strip()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _device(device: torch.device) -> str:
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}"
    return f"{device.type}: {_processor()}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.machine()
