"""The Slurm script in a shell without Slurm: srun and scontrol are stand-ins that do what the script needs of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import yaml

from cyclegan.training import checkpoint
from tests.conftest import merged
from tests.training.test_stop import LONG, wait_for_curves

ROOT = Path(__file__).parents[1]
STANDINS = {
    "srun": """#!/usr/bin/env bash
shift  # --kill-on-bad-exit=1
trap 'kill -USR1 $!; wait $!; exit $?' USR1
SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_NTASKS=1 "$@" &
echo $$ > "$STANDIN/srun.pid"
wait $!
""",
    "scontrol": """#!/usr/bin/env bash
if [ "$1" = show ]; then echo localhost; echo other; else echo "$@" >> "$STANDIN/scontrol.log"; fi
""",
}


def test_a_job_at_its_limit_saves_requeues_itself_and_goes_on(options: dict, tmp_path: Path):
    for name, text in STANDINS.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    options = merged(options, **LONG)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(options))
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "STANDIN": str(tmp_path),
        "PYTHON": sys.executable,
        "SLURM_JOB_NODELIST": "a[1-2]",
        "SLURM_JOB_ID": "77",
    }

    def job(*arguments: str) -> subprocess.Popen:
        command = ["bash", str(ROOT / "scripts" / "train.slurm"), "--config", str(tmp_path / "run.yaml"), *arguments]
        return subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    run = Path(options["results"]) / "tiny"
    first = job()
    wait_for_curves(run)
    os.kill(int((tmp_path / "srun.pid").read_text()), signal.SIGUSR1)
    said, _ = first.communicate(timeout=120)
    assert first.returncode == 138, said
    assert (tmp_path / "scontrol.log").read_text() == "requeue 77\n"
    images = int(checkpoint.all_states(run / "state")[-1].name)
    time.sleep(0.1)
    second = job(f"training.max_images={images + 2}")
    said, _ = second.communicate(timeout=120)
    assert second.returncode == 0 and f"resumed from {run}/state/{images:09d}" in said
    assert (tmp_path / "scontrol.log").read_text() == "requeue 77\n"
