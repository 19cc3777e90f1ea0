"""One of several processes is killed: torchrun ends the others, and with --max-restarts goes on by itself."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest

from cyclegan.training.checkpoint import all_states
from tests.conftest import merged
from tests.processes import environment, run_training, train_command
from tests.training.test_loop import same_weights


def rank(launcher: int, number: int) -> int | None:
    """The process id of one rank that torchrun started."""
    for child in psutil.Process(launcher).children():
        if child.environ().get("RANK") == str(number):
            return child.pid
    return None


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_a_lost_rank_ends_all_and_max_restarts_goes_on_to_the_same_weights(lost: int, options: dict):
    options = merged(options, training={"epochs": 8, "decay_epochs": 8}, saving={"every_images": 2})
    whole = run_training({**options, "name": "whole"}, 2)
    assert whole.returncode == 0, whole.stderr
    run = Path(options["results"]) / "hurt"
    command = train_command({**options, "name": "hurt"}, 2)
    for restarts in (0, 2):
        launcher = subprocess.Popen(
            [*command[:3], "--standalone", "--max-restarts", str(restarts), *command[3:]],
            env={**environment(), "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"},  # else restarts never meet again
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        before = all_states(run / "state")[-1:]
        try:
            while all_states(run / "state")[-1:] == before:
                assert launcher.poll() is None, launcher.communicate()[0]
                time.sleep(0.01)
            os.kill(rank(launcher.pid, lost), signal.SIGKILL)
            said, _ = launcher.communicate(timeout=120)
        finally:
            launcher.kill()
        assert launcher.returncode == (0 if restarts else 1), said
    assert len(re.findall("resumed from", said)) == 2  # when started, and after the kill
    assert same_weights(run, run.with_name("whole"))
