"""Signals, full disks and lost helpers: the run stops in order, or goes on, and loses nothing."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from cyclegan.data import cache
from cyclegan.errors import UserError
from cyclegan.training import checkpoint
from cyclegan.training.doctor import Doctor
from cyclegan.training.journal import read_metrics
from cyclegan.training.loop import train
from tests.conftest import full_disk, merged
from tests.processes import environment, train_command
from tests.training.test_loop import same_weights

LONG = {"training": {"epochs": 1000, "decay_epochs": 0, "batches_per_epoch": 4}}


def start(options: dict, processes: int = 1) -> subprocess.Popen:
    command = train_command(options, processes)
    return subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for_curves(run: Path) -> None:
    deadline = time.monotonic() + 120
    while not (run / "log" / "metrics.jsonl").exists() or not (run / "log" / "metrics.jsonl").read_text():
        assert time.monotonic() < deadline, "training did not start"
        time.sleep(0.1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_saves_at_the_next_step_and_tells_the_scheduler(number: signal.Signals, options: dict):
    options = merged(options, **LONG)
    run = Path(options["results"]) / "tiny"
    process = start(options)
    wait_for_curves(run)
    process.send_signal(number)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + number, said
    assert f"stopped by {number.name}" in said and "Traceback" not in said
    (state,) = checkpoint.all_states(run / "state")
    images = int(state.name)
    whole = train(merged({**options, "name": "whole"}, training={"max_images": images + 3}))
    train(merged(options, training={"max_images": images + 3}))
    assert same_weights(run, whole)


def test_a_signal_ends_a_run_that_still_makes_its_cache(options: dict, pictures: Path, monkeypatch):
    load = cache._load
    monkeypatch.setattr(cache, "_load", lambda *picture: (time.sleep(0.5), load(*picture))[1])
    run = multiprocessing.get_context("fork").Process(target=train, args=(merged(options, data={"cache": True}),))
    run.start()
    while not list((pictures / ".cache").glob(".*.part")) and run.is_alive():
        time.sleep(0.01)
    os.kill(run.pid, signal.SIGTERM)
    run.join()
    assert run.exitcode == -signal.SIGTERM and not list((pictures / ".cache").glob("*.pixels"))


def test_a_signal_to_one_of_two_processes_stops_both_at_the_same_step(options: dict):
    options = merged(options, **LONG)
    run = Path(options["results"]) / "tiny"
    process = start(options, 2)
    wait_for_curves(run)
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True)
    os.kill(int(children.stdout.split()[-1]), signal.SIGTERM)
    said, _ = process.communicate(timeout=180)
    assert "stopped by SIGTERM" in said
    (state,) = checkpoint.all_states(run / "state")
    assert checkpoint.damage(state) is None and checkpoint.read_manifest(state)["processes"] == 2


def test_a_signal_to_the_whole_group_stops_in_order_though_workers_get_it_too(options: dict):
    options = merged(options, **LONG, data={"workers": 2})
    run = Path(options["results"]) / "tiny"
    process = subprocess.Popen(
        train_command(options, 1),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    wait_for_curves(run)
    os.killpg(process.pid, signal.SIGTERM)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM, said
    assert "Traceback" not in said and checkpoint.damage(checkpoint.all_states(run / "state")[-1]) is None


def test_a_disk_that_is_full_for_curves_and_sheets_too_does_not_end_the_run(
    options: dict, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
):
    monkeypatch.setattr("cyclegan.training.chronicle.save_atomically", full_disk)
    monkeypatch.setattr("cyclegan.training.journal.Journal.add", full_disk)
    assert same_weights(train(options), train({**options, "name": "again"}))
    assert "not written" in capfd.readouterr().out


def test_a_full_disk_is_said_and_training_goes_on(
    options: dict, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
):
    whole = train({**options, "name": "whole"})
    write, calls = checkpoint._write, []

    def full(path: Path, state: dict) -> None:
        calls.append(path)
        if len(calls) == 3:
            path.write_bytes(b"half")
            full_disk()
        write(path, state)

    monkeypatch.setattr(checkpoint, "_write", full)
    run = train(merged(options, saving={"every_images": 4}))
    said = capfd.readouterr()
    assert "could not save" in said.out + said.err and "No space left on device" in said.out + said.err
    assert [path.name for path in sorted((run / "state").iterdir())] == ["000000012", "000000016"]
    assert same_weights(run, whole)


def test_a_full_disk_gets_room_for_a_newer_state_by_one_that_it_makes_superfluous(
    options: dict, monkeypatch: pytest.MonkeyPatch
):
    states, write = Path(options["results"]) / "tiny" / "state", checkpoint._write

    def full_with_two(path: Path, state: dict) -> None:
        if len(checkpoint.all_states(states)) >= 2:
            full_disk()
        write(path, state)

    monkeypatch.setattr(checkpoint, "_write", full_with_two)
    monkeypatch.setattr("shutil.disk_usage", nothing_free)
    run = train(merged(options, saving={"every_images": 2}))
    assert [state.name for state in checkpoint.all_states(run / "state")] == ["000000014", "000000016"]
    assert all(checkpoint.damage(state) is None for state in checkpoint.all_states(run / "state"))


def nothing_free(_: Path) -> SimpleNamespace:
    return SimpleNamespace(free=1000)


@pytest.mark.parametrize("keep", [1, 2])
def test_no_state_is_given_for_room_that_is_of_no_use(keep: int, options: dict, monkeypatch: pytest.MonkeyPatch):
    """Either none is superfluous, or the disk is not full: what there is stays."""
    options = merged(options, saving={"every_images": 2, "keep_last": keep})
    run = train(merged(options, training={"max_images": 4}))
    before = checkpoint.all_states(run / "state")
    if keep == 1:
        monkeypatch.setattr("shutil.disk_usage", nothing_free)
    monkeypatch.setattr(checkpoint, "_write", full_disk)
    with pytest.raises(OSError, match="No space left"):
        train(merged(options, training={"max_images": 8}))
    assert checkpoint.all_states(run / "state") == before


def test_a_folder_of_states_that_cannot_be_written_to_is_said_at_the_start(options: dict):
    run = Path(options["results"]) / "tiny"
    run.mkdir(parents=True)
    (run / "state").write_text("a file")
    with pytest.raises(UserError, match=r"tiny.state cannot be written to \(File exists\)"):
        train(options)
    assert not (run / "log" / "metrics.jsonl").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_state_that_a_full_disk_cuts_short_says_so():
    """torch.save alone tells how far it came: unexpected pos 704 vs 598."""
    with pytest.raises(OSError, match="No space left"):
        checkpoint._write(Path("/dev/full"), {"weights": torch.zeros(10**6)})


def test_a_last_state_that_cannot_be_written_is_an_error(options: dict, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(checkpoint, "_write", full_disk)
    with pytest.raises(OSError, match="No space left"):
        train(options)


def test_a_lost_loader_worker_is_one_line_and_the_run_goes_on_from_its_state(options: dict):
    options = merged(options, **LONG, data={"workers": 1}, saving={"every_images": 4})
    run = Path(options["results"]) / "tiny"
    process = start(options)
    wait_for_curves(run)
    time.sleep(1)
    children = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True)
    for child in children.stdout.split():
        os.kill(int(child), signal.SIGKILL)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "a loader worker died" in said and "Traceback" not in said
    assert checkpoint.damage(checkpoint.all_states(run / "state")[-1]) is None


def test_a_network_that_does_not_fit_the_state_is_named(options: dict):
    train(merged(options, training={"max_images": 4}))
    with pytest.raises(UserError, match=r"generator\.blocks: 1 -> 2"):
        train(merged(options, generator={"blocks": 2}))


def test_channels_that_do_not_fit_the_state_are_named(options: dict):
    options = merged(options, algorithm={"identity": 0})
    train(merged(options, training={"max_images": 4}))
    with pytest.raises(UserError, match=r"data\.A\.channels: 3 -> 1"):
        train(merged(options, data={"A": {"channels": 1}}))


def test_lines_that_cannot_be_written_cost_no_remarks(options: dict, monkeypatch, capsys):
    """The disk is full from the first line to the fourth."""
    read, whole, open_ = [], Doctor.read, Path.open

    def open_if_room(path: Path, mode: str = "r", **more: object):
        if path.name == "metrics.jsonl" and mode == "a" and len(read) < 4:
            raise OSError(28, "No space left on device")
        return open_(path, mode, **more)

    monkeypatch.setattr(Path, "open", open_if_room)
    monkeypatch.setattr(
        Doctor, "read", lambda doctor, images, *rest: read.append(images) or whole(doctor, images, *rest)
    )
    run = train(options)
    assert read == [2, 4, 6, 8, 10, 12, 14, 16]
    assert [line["images"] for line in read_metrics(run / "log" / "metrics.jsonl")] == [10, 12, 14, 16]
    assert capsys.readouterr().out.count("was not written") == 1


def test_a_disk_that_is_full_at_the_end_is_said_and_the_generators_are_there(options: dict, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_state", full)
    with pytest.raises(OSError, match="trained to the end, but not all could be saved"):
        train(options)
    assert (Path(options["results"]) / "tiny" / "AtoB.safetensors").exists()
