"""kill -9 at random moments, saves included: every run goes on to the weights of the uninterrupted one, bit for bit."""

from __future__ import annotations

import random
import subprocess
import time
from pathlib import Path

import pytest

from cyclegan.training import checkpoint
from cyclegan.training.journal import read_metrics
from cyclegan.training.loop import train
from tests.conftest import merged
from tests.processes import environment, train_command
from tests.training.test_loop import same_weights

KILLS, IMAGES = 50, 160


@pytest.mark.slow
def test_fifty_kills_lose_nothing(options: dict, capsys: pytest.CaptureFixture):
    options = merged(
        options,
        algorithm={"name": "cyclegan", "pool": 5},
        training={"epochs": 20, "decay_epochs": 20, "ema": 0.9},
        data={"workers": 1},
        saving={"every_images": 1, "keep_last": 2},  # a save after every update: most kills fall into one
        logging={"samples": 0},
    )
    whole = train({**options, "name": "whole"})
    chance, kills, rounds = random.Random(0), 0, []
    while kills < KILLS:
        name = f"round{len(rounds)}"
        moments = []
        while not _run_and_kill({**options, "name": name}, chance.uniform(0.0, 1.5), moments):
            kills += 1
        run = Path(options["results"]) / name
        rounds.append((name, len(moments), moments, same_weights(whole, run)))
        assert [x["generators"] for x in read_metrics(run / "log" / "metrics.jsonl")] == [
            x["generators"] for x in read_metrics(whole / "log" / "metrics.jsonl")
        ]
    with capsys.disabled():
        print(f"\n{'run':<8} {'kills':>5}  same weights  killed after images (+: while a state was being written)")
        for name, count, moments, same in rounds:
            print(f"{name:<8} {count:>5}  {'yes' if same else 'NO':<12}  {' '.join(moments)}")
        print(f"{kills} kills, {sum(same for *_, same in rounds)} of {len(rounds)} runs end in the same weights")
    assert all(same for *_, same in rounds)


def _run_and_kill(options: dict, seconds: float, moments: list[str]) -> bool:
    """Train, and kill after so many seconds of training; True if it was done before."""
    states = Path(options["results"]) / options["name"] / "state"
    before = checkpoint.all_states(states)
    process = subprocess.Popen(
        train_command(options, 1), env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 120
    while process.poll() is None and checkpoint.all_states(states)[-1:] == before[-1:]:
        assert time.monotonic() < deadline, "training did not start"
        time.sleep(0.005)
    time.sleep(seconds)
    process.kill()
    _, said = process.communicate()
    if process.returncode == 0:
        return True
    assert process.returncode == -9, said
    writing = "+" if list(states.glob(".writing-*")) else ""
    moments.append(f"{int(checkpoint.all_states(states)[-1].name)}{writing}")
    return False
