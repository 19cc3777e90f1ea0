"""A run is trained by one session at a time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from cyclegan.training.loop import train
from cyclegan.training.session import RunBusy, only_session
from tests.conftest import merged

HOLDER = """
import sys, time
from pathlib import Path
from cyclegan.training.session import only_session
with only_session(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_session_is_refused_until_the_first_has_ended(options: dict):
    run = Path(options["results"]) / "tiny"
    with subprocess.Popen([sys.executable, "-c", HOLDER, run], stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(RunBusy, match=rf"tiny: process {holder.pid} on .+ is training this run"):
                train(options)
            assert not run.exists()
            train({**options, "name": "another"})
        finally:
            holder.kill()
    run = train(merged(options, training={"max_images": 4}))
    assert [state.name for state in (run / "state").iterdir()] == ["000000004"]


def test_a_file_system_without_locks_is_warned_of(tmp_path: Path, monkeypatch, capsys):
    def refuse(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("cyclegan.training.session.fcntl.lockf", refuse)
    with only_session(tmp_path / "x"):
        pass
    assert "no locks here (No locks available); don't train x twice" in capsys.readouterr().out
