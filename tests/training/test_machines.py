"""Two machines: two network namespaces on this one, joined by a cable (a veth pair). Needs root and iproute2."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from cyclegan.training.checkpoint import all_states
from cyclegan.training.loop import train
from tests.conftest import merged
from tests.processes import TRAIN, environment, train_command
from tests.training.test_loop import same_weights, weights_of
from tests.training.test_processes import SGD

HOSTS = ("10.77.0.1", "10.77.0.2")


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


@pytest.fixture
def machines() -> Iterator[list[str]]:
    """The names of two namespaces, each with one address on a network that only the two share."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("needs root and iproute2 to make network namespaces")
    names = [f"cyclegan-{os.getpid()}-{i}" for i in range(2)]
    try:
        for name in names:
            ip("netns", "add", name)
        ip("link", "add", "cable", "netns", names[0], "type", "veth", "peer", "name", "cable", "netns", names[1])
        for name, host in zip(names, HOSTS, strict=True):
            ip("-n", name, "addr", "add", f"{host}/24", "dev", "cable")
            ip("-n", name, "link", "set", "cable", "up")
            ip("-n", name, "link", "set", "lo", "up")
        yield names
    except subprocess.CalledProcessError as error:
        pytest.skip(f"no network namespaces here: {error.stderr.strip()}")
    finally:
        for name in names:
            left = subprocess.run(["ip", "netns", "pids", name], capture_output=True, text=True, check=False).stdout
            for pid in left.split():
                os.kill(int(pid), signal.SIGKILL)
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


def start(machines: list[str], options: dict) -> list[subprocess.Popen]:
    """torchrun on each machine, as docs/training.md says; it starts one process there.

    Both have this machine's host name, so each is told whether it is the one that they meet on, and its address.
    """
    config = train_command(options, 1)[-1]
    launch = [sys.executable, "-m", "torch.distributed.run", "--nnodes", "2", "--nproc_per_node", "1"]
    launch += ["--rdzv_backend", "c10d", "--rdzv_endpoint", f"{HOSTS[0]}:29500", "--rdzv_id", "test"]
    return [
        subprocess.Popen(
            [
                *("ip", "netns", "exec", name, *launch),
                *("--rdzv_conf", f"is_host={host == HOSTS[0]}", "--local_addr", host, str(TRAIN), "--config", config),
            ],
            env={**environment(), "GLOO_SOCKET_IFNAME": "cable"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for name, host in zip(machines, HOSTS, strict=True)
    ]


def test_two_machines_compute_what_one_process_does(machines: list[str], options: dict):
    options = merged(options, **SGD)
    one = train(merged({**options, "name": "one"}, training={"batch_size": 2, "epochs": 1, "decay_epochs": 0}))
    running = start(machines, merged({**options, "name": "two"}, training={"epochs": 1, "decay_epochs": 0}))
    said = [process.communicate(timeout=120)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0], said
    assert any("batch 1 x 2 processes" in text for text in said)
    ours, theirs = weights_of(one), weights_of(one.with_name("two"))
    for name, value in ours.items():
        assert torch.allclose(value, theirs[name], rtol=0, atol=1e-8), name


@pytest.mark.slow
def test_a_machine_that_dies_ends_the_other_and_both_go_on_later(machines: list[str], options: dict):
    options = merged(options, training={"epochs": 10, "decay_epochs": 10}, saving={"every_images": 2})
    run = Path(options["results"]) / "two"
    for name in ("whole", "two"):
        running = start(machines, {**options, "name": name})
        if name == "two":
            while not all_states(run / "state"):
                assert running[0].poll() is None, running[0].communicate()[0]
                time.sleep(0.02)
            for pid in subprocess.check_output(["ip", "netns", "pids", machines[1]], text=True).split():
                os.kill(int(pid), signal.SIGKILL)  # workers are in a session of their own, and outlive torchrun
        said = [process.communicate(timeout=120)[0] for process in running]
    assert running[0].returncode == 1, said[0]
    assert all_states(run / "state")[-1].name < "000000160"
    running = start(machines, {**options, "name": "two"})
    said = [process.communicate(timeout=120)[0] for process in running]
    assert any("resumed from" in text for text in said)
    assert same_weights(run, run.with_name("whole"))
