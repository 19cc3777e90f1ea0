"""Training by several processes on this machine, as torchrun starts them; run by one of them, one run after another."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import yaml

from cyclegan.training.loop import train

TRAIN = Path(__file__).parents[1] / "train.py"


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONUNBUFFERED": "1"}


def train_command(options: dict, processes: int, *arguments: str) -> list[str]:
    """A command that trains; the options go to a file beside the results."""
    script = [str(TRAIN), "--config", str(_written(options, processes)), *arguments]
    return [sys.executable, *(_torchrun(processes) if processes > 1 else []), *script]


def _written(options: dict, processes: int) -> Path:
    path = Path(options["results"]) / f"{options['name']}-{processes}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(options))
    return path


def _torchrun(processes: int) -> list[str]:
    return ["-m", "torch.distributed.run", "--nproc_per_node", str(processes), "--master_port", str(free_port())]


def run_training(options: dict, processes: int, *arguments: str, timeout: int = 300) -> subprocess.CompletedProcess:
    return _done(train_command(options, processes, *arguments), timeout)


def run_trainings(runs: list[dict], processes: int) -> subprocess.CompletedProcess:
    """One after another in the same processes, whose start takes longer than a tiny run."""
    configs = [str(_written(options, processes)) for options in runs]
    return _done([sys.executable, *_torchrun(processes), "-m", "tests.processes", *configs], timeout=300)


def _done(command: list[str], timeout: int) -> subprocess.CompletedProcess:
    return subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=timeout, check=False, cwd=TRAIN.parent
    )


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


if __name__ == "__main__":
    for config in sys.argv[1:]:
        train(config)
