"""Training by several processes on this machine, as torchrun starts them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import yaml

TRAIN = Path(__file__).parents[1] / "train.py"


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def train_command(options: dict, processes: int, *arguments: str) -> list[str]:
    """A command that trains; the options go to a file beside the results."""
    path = Path(options["results"]) / f"{options['name']}-{processes}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(options))
    script = [str(TRAIN), "--config", str(path), *arguments]
    if processes == 1:
        return [sys.executable, *script]
    launch = ["-m", "torch.distributed.run", "--nproc_per_node", str(processes), "--master_port", str(free_port())]
    return [sys.executable, *launch, *script]


def run_training(options: dict, processes: int, *arguments: str, timeout: int = 300) -> subprocess.CompletedProcess:
    command = train_command(options, processes, *arguments)
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=timeout, check=False)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
