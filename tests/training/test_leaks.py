"""Memory and open files of a run do not grow."""

from __future__ import annotations

import subprocess
from statistics import median

import psutil
import pytest

from tests.conftest import merged
from tests.processes import environment, train_command


@pytest.mark.slow
def test_memory_and_open_files_stay_flat_over_two_thousand_updates(
    options: dict, capsys: pytest.CaptureFixture[str]
) -> None:
    options = merged(
        options,
        training={"epochs": 1000, "decay_epochs": 1000, "max_images": 2000, "ema": 0.9},
        data={"workers": 2},
        logging={"log_every": 10, "sample_every": 50, "trackers": ["tensorboard"]},
        saving={"every_epochs": 1000, "every_images": 50},
    )
    process = subprocess.Popen(train_command(options, 1), env=environment(), stderr=subprocess.PIPE, text=True)
    watched, readings = psutil.Process(process.pid), []
    while process.poll() is None:
        try:
            family = [watched, *watched.children(recursive=True)]
            readings.append((watched.memory_info().rss / 2**20, sum(one.num_fds() for one in family)))
        except (psutil.Error, OSError):  # it has just ended
            pass
        try:
            process.wait(timeout=0.5)
        except subprocess.TimeoutExpired:
            continue
    assert process.returncode == 0, process.stderr.read()
    quarters = [readings[len(readings) * i // 4 : len(readings) * (i + 1) // 4] for i in range(4)]
    memory = [median(m for m, _ in quarter) for quarter in quarters]
    files = [median(f for _, f in quarter) for quarter in quarters]
    with capsys.disabled():
        print(f"\nMiB by quarter {[round(m, 1) for m in memory]}, open files {files}, {len(readings)} readings")
    assert len(readings) >= 40
    assert memory[3] < memory[1] + 6  # MiB: a 32x32 picture kept for each of the 1000 updates between would be 12
    assert files[3] <= files[1] + 1
